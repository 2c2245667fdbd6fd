//! What a database is: every object of its catalog in words, every table's rows in a digest. Two databases with the same
//! lists are the same to whoever uses them; OIDs, places on disk and the order of rows do not count.

use std::collections::BTreeSet;

use backup_postgres::{Address, Connection};

/// One catalog after the other: what its lines are about, and the query that answers lines of text.
///
/// Names are spelt by `regclass` and its like under an empty search path. Rights are compared as they work: none recorded is the default.
const CATALOGS: &[(&str, &str)] = &[
    (
        "schema",
        "SELECT format('%I owner %s acl %s comment %L', nspname, nspowner::regrole, ARRAY(SELECT a::text FROM unnest(coalesce(nspacl, acldefault('n', nspowner))) a ORDER BY 1), obj_description(oid, 'pg_namespace')) FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'",
    ),
    (
        "relation",
        "SELECT format('%s kind %s persistence %s owner %s acl %s rls %s %s identity %s options %s am %s partition %L key %L parents %s populated %s type %s comment %L view %L', c.oid::regclass, relkind, relpersistence, relowner::regrole, \
        ARRAY(SELECT a::text FROM unnest(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", relowner))) a ORDER BY 1), relrowsecurity, relforcerowsecurity, relreplident, reloptions, am.amname, \
        pg_get_expr(relpartbound, c.oid), pg_get_partkeydef(c.oid), ARRAY(SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = c.oid ORDER BY inhseqno), relispopulated, nullif(reloftype, 0)::regtype, obj_description(c.oid, 'pg_class'), \
        CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_am am ON am.oid = relam WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' AND relkind <> 'i' AND relkind <> 'I'",
    ),
    (
        "column",
        "SELECT format('%s.%I #%s %s null %s default %L identity %s generated %s collation %s storage %s compression %s statistics %s options %s local %s acl %s comment %L', c.oid::regclass, attname, \
        row_number() OVER (PARTITION BY attrelid ORDER BY attnum), format_type(atttypid, atttypmod), NOT attnotnull, pg_get_expr(adbin, adrelid), attidentity, attgenerated, nullif(attcollation, 0)::regcollation, attstorage, attcompression, \
        nullif(attstattarget, -1), attoptions, attislocal, attacl, col_description(c.oid, attnum)) \
        FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_attrdef d ON (adrelid, adnum) = (attrelid, attnum) \
        WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'",
    ),
    (
        "constraint",
        "SELECT format('%s on %s%s: %s valid %s deferred %s %s local %s comment %L', conname, nullif(conrelid, 0)::regclass, nullif(contypid, 0)::regtype, pg_get_constraintdef(oid), convalidated, condeferrable, condeferred, conislocal, obj_description(oid, 'pg_constraint')) \
        FROM pg_constraint WHERE connamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg\\_%' OR nspname = 'information_schema')",
    ),
    (
        "index",
        "SELECT format('%s clustered %s identity %s valid %s comment %L', pg_get_indexdef(indexrelid), indisclustered, indisreplident, indisvalid, obj_description(indexrelid, 'pg_class')) \
        FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'",
    ),
    (
        "trigger",
        "SELECT format('%s enabled %s comment %L', pg_get_triggerdef(oid), tgenabled, obj_description(oid, 'pg_trigger')) FROM pg_trigger WHERE NOT tgisinternal",
    ),
    (
        "event trigger",
        "SELECT format('%I on %s owner %s runs %s enabled %s tags %s', evtname, evtevent, evtowner::regrole, evtfoid::regproc, evtenabled, evttags) FROM pg_event_trigger",
    ),
    (
        "rule",
        "SELECT format('%s enabled %s', pg_get_ruledef(oid), ev_enabled) FROM pg_rewrite WHERE rulename <> '_RETURN' AND ev_class >= 16384",
    ),
    (
        "policy",
        "SELECT format('%I on %s %s permissive %s roles %s using %L check %L comment %L', polname, polrelid::regclass, polcmd, polpermissive, ARRAY(SELECT r::regrole::text FROM unnest(polroles) r ORDER BY 1), pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid), obj_description(oid, 'pg_policy')) FROM pg_policy",
    ),
    (
        "routine",
        "SELECT format('%s kind %s owner %s acl %s comment %L: %s', p.oid::regprocedure, prokind, proowner::regrole, ARRAY(SELECT a::text FROM unnest(coalesce(proacl, acldefault('f', proowner))) a ORDER BY 1), obj_description(p.oid, 'pg_proc'), CASE WHEN prokind <> 'a' THEN pg_get_functiondef(p.oid) END) \
        FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass)",
    ),
    (
        "type",
        "SELECT format('%s type %s category %s base %s default %L null %s owner %s acl %s comment %L labels %s range %s', t.oid::regtype, typtype, typcategory, nullif(format_type(nullif(typbasetype, 0), typtypmod), '???'), typdefault, NOT typnotnull, typowner::regrole, typacl, obj_description(t.oid, 'pg_type'), \
        ARRAY(SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder), (SELECT rngsubtype::regtype FROM pg_range WHERE rngtypid = t.oid)) \
        FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'",
    ),
    (
        "sequence",
        "SELECT format('%s %s start %s step %s min %s max %s cache %s cycle %s owned by %s', s.seqrelid::regclass, seqtypid::regtype, seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle, (SELECT refobjid::regclass || '#' || deptype::text FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = seqrelid AND deptype IN ('a', 'i') AND refclassid = 'pg_class'::regclass)) FROM pg_sequence s",
    ),
    (
        "extension",
        "SELECT format('%I %s in %s config %s', extname, extversion, extnamespace::regnamespace, extconfig::regclass[]) FROM pg_extension",
    ),
    (
        "operator",
        "SELECT format('%s owner %s code %s', o.oid::regoperator, oprowner::regrole, oprcode::regproc) FROM pg_operator o WHERE oid >= 16384",
    ),
    (
        "cast",
        "SELECT format('%s to %s by %s context %s', castsource::regtype, casttarget::regtype, castfunc::regproc, castcontext) FROM pg_cast WHERE oid >= 16384",
    ),
    (
        "collation",
        "SELECT format('%s provider %s', c.oid::regcollation, collprovider) FROM pg_collation c JOIN pg_namespace n ON n.oid = collnamespace WHERE nspname <> 'pg_catalog'",
    ),
    (
        "text search",
        "SELECT format('%s parser %s', c.oid::regconfig, cfgparser) FROM pg_ts_config c WHERE oid >= 16384",
    ),
    ("statistics", "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext"),
    (
        "default rights",
        "SELECT format('%s in %s for %s: %s', defaclrole::regrole, nullif(defaclnamespace, 0)::regnamespace, defaclobjtype, ARRAY(SELECT a::text FROM unnest(defaclacl) a ORDER BY 1)) FROM pg_default_acl",
    ),
    (
        "publication",
        "SELECT format('%I all %s tables %s', p.pubname, puballtables, ARRAY(SELECT format('%s.%s(%s) where %s', t.schemaname, t.tablename, t.attnames, t.rowfilter) FROM pg_publication_tables t WHERE t.pubname = p.pubname ORDER BY 1)) FROM pg_publication p",
    ),
    (
        "large object",
        "SELECT format('%s owner %s acl %s comment %L bytes %s', oid, lomowner::regrole, ARRAY(SELECT a::text FROM unnest(coalesce(lomacl, acldefault('L', lomowner))) a ORDER BY 1), obj_description(oid, 'pg_largeobject'), md5(lo_get(oid)) || '/' || length(lo_get(oid))) FROM pg_largeobject_metadata",
    ),
];

/// The relations with rows of their own: tables with what of them is asked, sequences.
const ROWS: &str = "SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
    WHERE relkind IN ('r', 'm', 'S', 'p') AND (relkind <> 'm' OR relispopulated) AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'";

/// Describes a database in lines, without what `but` says of a line.
pub(crate) fn describe(address: &Address, but: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
    let mut connection: Connection = crate::support::open(address);
    let client = connection.client();
    client.batch_execute("SET search_path = ''; SET row_security = off; SET extra_float_digits = 1").unwrap();
    let mut lines = BTreeSet::new();
    for (about, sql) in CATALOGS {
        let rows = client.query(*sql, &[]).unwrap_or_else(|error| panic!("{about}: {error:?}"));
        assert!(*about != "relation" || !rows.is_empty());
        for row in rows {
            let line: String = row.get(0);
            lines.insert(format!("{about}: {line}"));
        }
    }
    for row in client.query(ROWS, &[]).unwrap() {
        let (name, kind): (String, String) = (row.get(0), row.get(1));
        let line: String = if kind == "S" {
            client
                .query_one(&format!("SELECT format('%s %s', last_value, is_called) FROM {name}"), &[])
                .unwrap()
                .get(0)
        } else {
            let sql = format!(
                "SELECT format('%s rows, digest %s', count(*), md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"), ''))) FROM {}{name} t",
                if kind == "p" { "" } else { "ONLY " }
            );
            client.query_one(&sql, &[]).unwrap_or_else(|error| panic!("{name}: {error:?}")).get(0)
        };
        lines.insert(format!("rows of {name}: {line}"));
    }
    // Enum values hash by their OIDs, which are others in every database: such partitions are compared together.
    lines.retain(|line| !but(line) && !line.starts_with("rows of public.by_mood_"));
    lines
}

/// Fails with the first lines that one has and the other has not.
pub(crate) fn assert_same(what: &str, one: &BTreeSet<String>, other: &BTreeSet<String>) {
    let gone: Vec<_> = one.difference(other).take(6).collect();
    let new: Vec<_> = other.difference(one).take(6).collect();
    assert!(gone.is_empty() && new.is_empty(), "{what}: expected {gone:#?}, found {new:#?}");
}
