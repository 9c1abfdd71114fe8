"""Row-level security on models, datasets and releases, and on what belongs to them.

A department sees its own; models that are shared; releases that name it or are visible to the
organisation; and what a row that it sees stands on: the model of such a release, the bases below
it, the data they were trained and measured on. Those are found by two functions that see
everything themselves, because policies that refer to each other in a circle are refused.
"""

from django.db import migrations

MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"

# They set and put back what the policies read: only a superuser may attach such a setting to a
# function. An error ends the transaction, and with it the setting. What they found they keep for
# the rest of the scope, which is asked for it by every table of a query.
FUNCTIONS = """
CREATE FUNCTION assay_reached_versions(mine bigint[])
RETURNS TABLE (model_id bigint, dataset_version_id bigint) LANGUAGE sql STABLE AS $$
    WITH RECURSIVE named AS (
        SELECT v.base_id AS id
        FROM registry_modelversion v JOIN registry_model m ON m.id = v.model_id
        WHERE v.base_id IS NOT NULL AND (m.department_id = ANY (mine) OR m.shared)
        UNION
        SELECT r.version_id
        FROM registry_release r
        WHERE r.department_id = ANY (mine) OR r.visibility = 'organisation'
           OR r.id IN (SELECT n.release_id FROM registry_release_departments n
                       WHERE n.department_id = ANY (mine))
    ),
    reached AS (
        SELECT v.id, v.model_id, v.base_id, v.dataset_version_id
        FROM registry_modelversion v JOIN named ON v.id = named.id
        UNION
        SELECT b.id, b.model_id, b.base_id, b.dataset_version_id
        FROM registry_modelversion b JOIN reached ON b.id = reached.base_id
    )
    SELECT DISTINCT reached.model_id, reached.dataset_version_id FROM reached
$$;

CREATE FUNCTION assay_reached_models(mine bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := current_setting('assay.departments', true);
    known text := NULLIF(current_setting('assay.reached_models', true), '');
BEGIN
    IF known IS NULL THEN
        PERFORM set_config('assay.departments', '*', true);
        SELECT coalesce(array_agg(DISTINCT r.model_id)::text, '{}')
        INTO known FROM assay_reached_versions(mine) r;
        PERFORM set_config('assay.departments', caller, true),
                set_config('assay.reached_models', known, true);
    END IF;
    RETURN QUERY SELECT unnest(known::bigint[]);
END
$$;

CREATE FUNCTION assay_reached_datasets(mine bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := current_setting('assay.departments', true);
    known text := NULLIF(current_setting('assay.reached_datasets', true), '');
BEGIN
    IF known IS NULL THEN
        PERFORM set_config('assay.departments', '*', true);
        WITH used AS (
            SELECT r.dataset_version_id FROM assay_reached_versions(mine) r
            UNION
            SELECT v.dataset_version_id
            FROM registry_modelversion v JOIN registry_model m ON m.id = v.model_id
            WHERE v.dataset_version_id IS NOT NULL AND (m.department_id = ANY (mine) OR m.shared)
            UNION
            SELECT e.dataset_version_id
            FROM registry_evaluation e
            JOIN registry_modelversion v ON v.id = e.version_id
            JOIN registry_model m ON m.id = v.model_id
            WHERE m.department_id = ANY (mine)
        ),
        named AS (
            SELECT d.dataset_id
            FROM registry_datasetversion d JOIN used ON d.id = used.dataset_version_id
            UNION
            SELECT g.dataset_id
            FROM registry_gate g JOIN registry_model m ON m.id = g.model_id
            WHERE m.department_id = ANY (mine)
        )
        SELECT coalesce(array_agg(named.dataset_id)::text, '{}') INTO known FROM named;
        PERFORM set_config('assay.departments', caller, true),
                set_config('assay.reached_datasets', known, true);
    END IF;
    RETURN QUERY SELECT unnest(known::bigint[]);
END
$$;
"""

NO_FUNCTIONS = """
DROP FUNCTION assay_reached_datasets(bigint[]);
DROP FUNCTION assay_reached_models(bigint[]);
DROP FUNCTION assay_reached_versions(bigint[]);
"""

OWN_MODELS = f"{MINE} OR (SELECT assay_opened('model'))"
MODELS = (
    f"shared OR {OWN_MODELS} OR id IN (SELECT assay_reached_models((SELECT assay_departments())))"
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
