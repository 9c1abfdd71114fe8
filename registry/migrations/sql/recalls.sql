-- A recall is permanent. These functions see the rows of all departments, for any writer, and
-- restore the setting that row-level security reads.
--
-- An update needs no lock, because a recall waits for the release's row and then sees its state.

CREATE FUNCTION assay_recall_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'recalled' AND (NEW.state <> 'recalled' OR NEW.digest <> OLD.digest) THEN
        RAISE EXCEPTION 'version % is recalled for good', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'version_recall_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_recall_stands BEFORE UPDATE ON registry_modelversion
    FOR EACH ROW EXECUTE FUNCTION assay_recall_stands();

CREATE FUNCTION assay_not_on_recalled() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    recalled bigint;
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    SELECT v.id INTO recalled FROM registry_modelversion v
    WHERE v.state = 'recalled' AND (v.id = NEW.base_id OR v.digest = NEW.digest) LIMIT 1;
    PERFORM set_config('assay.departments', caller, true);
    IF recalled IS NOT NULL THEN
        RAISE EXCEPTION 'version % is recalled: nothing is registered on it or with its bytes',
            recalled USING ERRCODE = 'check_violation', CONSTRAINT = 'version_not_on_recalled';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_not_on_recalled BEFORE INSERT ON registry_modelversion
    FOR EACH ROW WHEN (NEW.state <> 'recalled') EXECUTE FUNCTION assay_not_on_recalled();

CREATE FUNCTION assay_release_of_recalled() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    standing text;
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    IF TG_OP = 'INSERT' THEN
        SELECT v.state INTO standing FROM registry_modelversion v
        WHERE v.id = NEW.version_id FOR KEY SHARE;
    ELSE
        SELECT v.state INTO standing FROM registry_modelversion v WHERE v.id = NEW.version_id;
    END IF;
    PERFORM set_config('assay.departments', caller, true);
    IF standing = 'recalled' THEN
        RAISE EXCEPTION 'version % is recalled: a release of it cannot be %',
            NEW.version_id, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'release_not_of_recalled';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_release_inserted BEFORE INSERT ON registry_release FOR EACH ROW
    WHEN (NEW.state IN ('in_review', 'changes_requested', 'approved'))
    EXECUTE FUNCTION assay_release_of_recalled();
CREATE TRIGGER assay_release_moved BEFORE UPDATE ON registry_release FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND NEW.state IN ('in_review', 'changes_requested', 'approved'))
    EXECUTE FUNCTION assay_release_of_recalled();
