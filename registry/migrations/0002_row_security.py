"""Row-level security on models, datasets and releases, and on what belongs to them.

A department sees its own; models that are shared; releases that name it or are visible to the
organisation; and what a row that it sees stands on: the model of such a release, the bases below
it, the data they were trained and measured on. Those are found by two functions that see
everything themselves, because policies that refer to each other in a circle are refused.
"""

from django.db import migrations

MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"

FUNCTIONS = """
CREATE FUNCTION assay_reached_versions(mine bigint[])
RETURNS TABLE (version_id bigint, model_id bigint, dataset_version_id bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path FROM CURRENT SET assay.departments = '*' AS $$
    WITH RECURSIVE reached AS (
        (SELECT v.id, v.model_id, v.base_id, v.dataset_version_id
         FROM registry_modelversion v JOIN registry_model m ON m.id = v.model_id
         WHERE m.department_id = ANY (mine) OR m.shared
         UNION
         SELECT v.id, v.model_id, v.base_id, v.dataset_version_id
         FROM registry_modelversion v JOIN registry_release r ON r.version_id = v.id
         WHERE r.department_id = ANY (mine) OR r.visibility = 'organisation'
            OR r.id IN (SELECT n.release_id FROM registry_release_departments n
                        WHERE n.department_id = ANY (mine)))
        UNION
        SELECT b.id, b.model_id, b.base_id, b.dataset_version_id
        FROM registry_modelversion b JOIN reached ON b.id = reached.base_id
    )
    SELECT id, model_id, dataset_version_id FROM reached
$$;

CREATE FUNCTION assay_reached_datasets(mine bigint[]) RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path FROM CURRENT SET assay.departments = '*' AS $$
    WITH own AS (SELECT id FROM registry_model WHERE department_id = ANY (mine)),
    used AS (
        SELECT dataset_version_id FROM assay_reached_versions(mine)
        UNION
        SELECT e.dataset_version_id
        FROM registry_evaluation e JOIN registry_modelversion v ON v.id = e.version_id
        WHERE v.model_id IN (SELECT id FROM own)
    )
    SELECT d.dataset_id FROM registry_datasetversion d JOIN used ON d.id = used.dataset_version_id
    UNION
    SELECT g.dataset_id FROM registry_gate g WHERE g.model_id IN (SELECT id FROM own)
$$;
"""

NO_FUNCTIONS = """
DROP FUNCTION assay_reached_datasets(bigint[]);
DROP FUNCTION assay_reached_versions(bigint[]);
"""

OWN_MODELS = f"{MINE} OR (SELECT assay_opened('model'))"
MODELS = (
    f"shared OR {OWN_MODELS} "
    "OR id IN (SELECT model_id FROM assay_reached_versions((SELECT assay_departments())))"
)
OWN_DATASETS = f"{MINE} OR (SELECT assay_opened('dataset'))"
DATASETS = f"{OWN_DATASETS} OR id IN (SELECT assay_reached_datasets((SELECT assay_departments())))"
OWN_RELEASES = f"{MINE} OR (SELECT assay_opened('release'))"
RELEASES = (
    f"visibility = 'organisation' OR {OWN_RELEASES} "
    "OR id IN (SELECT release_id FROM registry_release_departments "
    "WHERE department_id = ANY (assay_departments()))"
)


# What belongs to a row of the parent; with `owned`, to one that may be written.
def of(column, parent, owned="true"):
    return f"{column} IN (SELECT id FROM {parent} WHERE (SELECT assay_everything()) OR {owned})"


OF_OWN_MODELS = of("model_id", "registry_model", OWN_MODELS)
OF_OWN_VERSIONS = of("version_id", "registry_modelversion", OF_OWN_MODELS)

GUARDS = (
    ("registry_model", MODELS, OWN_MODELS),
    ("registry_dataset", DATASETS, OWN_DATASETS),
    ("registry_release", RELEASES, OWN_RELEASES),
    ("registry_modelversion", of("model_id", "registry_model"), OF_OWN_MODELS),
    (
        "registry_datasetversion",
        of("dataset_id", "registry_dataset"),
        of("dataset_id", "registry_dataset", OWN_DATASETS),
    ),
    # Deliveries, thresholds and results stay with the department, though its model be shared.
    ("registry_intake", OF_OWN_MODELS, OF_OWN_MODELS),
    ("registry_gate", OF_OWN_MODELS, OF_OWN_MODELS),
    # Written by the control plane alone, which sees everything.
    ("registry_evaluation", OF_OWN_VERSIONS, "false"),
    ("registry_gateresult", of("evaluation_id", "registry_evaluation"), "false"),
)


class Migration(migrations.Migration):
    dependencies = [("registry", "0001_initial"), ("governance", "0008_row_security")]

    operations = [
        migrations.RunSQL(FUNCTIONS, NO_FUNCTIONS),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
