//! Everything that must come back, from one server into another or under another name.

use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::postgres::{Postgres, shared};

/// A bit of everything a database can hold.
const EVERYTHING: &str = r#"
CREATE SCHEMA "Odd
schema";
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TABLE "Odd
schema"."it's ""quoted"", (FROM stdin;" ("a
b" text, "select" positive DEFAULT 1, "ü" mood);
INSERT INTO "Odd
schema"."it's ""quoted"", (FROM stdin;" VALUES (E'x\ty\nz', 2, 'ok'), (NULL, DEFAULT, 'sad');
CREATE TABLE made (a int, b int GENERATED ALWAYS AS (a * 2) STORED, c int GENERATED ALWAYS AS IDENTITY);
INSERT INTO made (a) SELECT generate_series(1, 100);
ALTER TABLE made ADD gone int; ALTER TABLE made DROP gone; ALTER TABLE made ADD d text DEFAULT 'later';
CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2025-01-01');
CREATE TABLE parts_new PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2030-01-01');
INSERT INTO parts SELECT i, '2023-01-01'::date + i FROM generate_series(0, 1499) i;
CREATE TABLE parent (id int); CREATE TABLE child (more text) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'two'), (3, 'three');
CREATE TABLE hidden (owner text, secret text); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
ALTER TABLE hidden FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON hidden USING (owner = current_user);
INSERT INTO hidden SELECT 'somebody', 's' || i FROM generate_series(1, 50) i;
CREATE SEQUENCE down INCREMENT -3 START 100 MINVALUE -1000 MAXVALUE 1000; SELECT nextval('down'), nextval('down');
CREATE SEQUENCE unused START 7;
CREATE MATERIALIZED VIEW filled AS SELECT count(*) FROM made;
CREATE MATERIALIZED VIEW unfilled AS SELECT count(*) FROM made WITH NO DATA;
CREATE VIEW plain AS SELECT * FROM made;
CREATE TABLE types (f8 float8, f4 float4, n numeric, at timestamptz, i interval, b bytea, j jsonb, a text[], x text);
INSERT INTO types VALUES (0.1::float8 + 0.2, 1e-37, 'NaN', '2026-06-01 12:00+02', '-1 day 02:03', '\x00ff5c',
    '{"k": "v\\n"}', ARRAY['a"b', NULL, '\'], '<a/>'), ('-infinity', 'NaN', 1e100, 'infinity', '1 mon', '', 'null', '{}', NULL);
CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS one;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no trigger runs in a restore'; END$$;
CREATE TRIGGER t BEFORE INSERT ON made FOR EACH ROW EXECUTE FUNCTION f();
SELECT lo_from_bytea(4242, decode(repeat('00ff10', 100000), 'hex')), lo_from_bytea(4243, ''), lo_create(4244);
SELECT lo_put(4244, 5000000, 'far');
COMMENT ON TABLE made IS 'it''s a comment';
"#;

#[test]
fn everything_in_a_database_comes_back() {
    for major in [15, 16, 18] {
        let postgres = shared(major);
        let source = postgres.database();
        postgres.sql(&source, EVERYTHING);
        if major == 15 {
            // Debian's package has extensions, the wheels have few.
            postgres.sql(&source, "CREATE EXTENSION hstore; CREATE TABLE h AS SELECT 'a=>1'::hstore AS h");
        }
        let machine = Machine::with_repository();
        back_up(&machine, &postgres.address(&source));
        let target = postgres.vacant();
        let said = restore(&machine, "latest", &postgres.address(&target));
        assert!(said.contains("3 large objects are those of the snapshot"), "{said}");
        assert_eq!(postgres.text(&target), postgres.text(&source), "version {major}");
        let last = "SELECT last_value FROM down";
        assert_eq!(postgres.sql(&target, last), postgres.sql(&source, last));
        let objects = "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid";
        assert_eq!(postgres.sql(&target, objects), postgres.sql(&source, objects));

        // The same through several sessions, from a spool file.
        let target = postgres.vacant();
        let said = machine.run(&["restore", "latest", "--to", &postgres.address(&target), "--jobs", "3"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert_eq!(postgres.text(&target), postgres.text(&source), "version {major}");
    }
}

#[test]
fn an_empty_database_comes_back_empty() {
    let postgres = shared(15);
    let source = postgres.database();
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    let target = postgres.vacant();
    restore(&machine, "latest", &postgres.address(&target));
    assert_eq!(postgres.text(&target), postgres.text(&source));
}

#[test]
fn databases_in_other_encodings_come_back_in_them() {
    let postgres = shared(15);
    for (encoding, locale, row) in [
        ("LATIN1", "C", r"U&'\00e9\00fc'"),
        ("SQL_ASCII", "C", r"E'\xe9\xff'"),
        ("EUC_JP", "C", r"U&'\65e5\672c'"),
        ("UTF8", "C.UTF-8", r"U&'\65e5\+01f600'"),
    ] {
        let source = postgres.vacant();
        postgres.sql(
            "postgres",
            &format!("CREATE DATABASE {source} TEMPLATE template0 ENCODING '{encoding}' LOCALE '{locale}'"),
        );
        let table = if encoding == "EUC_JP" { "\"日本\"" } else { "\"é\"" };
        postgres.sql(
            &source,
            &format!(
                "SET client_encoding = 'UTF8'; SET standard_conforming_strings = on;
                 CREATE TABLE {table} (\"a\\b\" text, {table} text);
                 INSERT INTO {table} VALUES ({row}, 'x')"
            ),
        );
        let machine = Machine::with_repository();
        back_up(&machine, &postgres.address(&source));
        let target = postgres.vacant();
        let said = restore(&machine, "latest", &postgres.address(&target));
        assert!(said.contains("row hashes of 1 tables (1 rows)"), "{said}");
        assert_eq!(postgres.text(&target), postgres.text(&source), "{encoding}");
        let sql = "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = ";
        let of = |name: &str| postgres.sql("postgres", &format!("{sql}'{name}'"));
        assert_eq!(of(&target), of(&source));
    }
}

/// Roles with odd names and passwords, memberships, grants, what belongs to a database as a whole.
#[test]
fn roles_rights_and_settings_come_back_on_another_server() {
    let (from, to) = (Postgres::start(15, ""), Postgres::start(15, ""));
    from.sql(
        "postgres",
        r#"CREATE ROLE "the; ""owner" LOGIN PASSWORD 'it''s; \secret'; CREATE ROLE reader; CREATE ROLE app IN ROLE reader;
           ALTER ROLE app SET statement_timeout = '5s';
           CREATE DATABASE shop OWNER "the; ""owner" CONNECTION LIMIT 17;
           COMMENT ON DATABASE shop IS 'where; it''s sold';
           REVOKE ALL ON DATABASE shop FROM PUBLIC; GRANT CONNECT ON DATABASE shop TO app WITH GRANT OPTION;
           ALTER DATABASE shop SET search_path = "$user", "Odd, path", public;
           ALTER DATABASE shop SET my.setting = 'it''s';
           ALTER ROLE app IN DATABASE shop SET work_mem = '5MB';"#,
    );
    from.sql(
        "shop",
        r#"CREATE TABLE t (a int, b int); ALTER TABLE t OWNER TO "the; ""owner"; GRANT SELECT (a) ON t TO reader;
           ALTER DEFAULT PRIVILEGES FOR ROLE "the; ""owner" GRANT SELECT ON TABLES TO reader"#,
    );
    let machine = Machine::with_repository();
    back_up(&machine, &from.address("shop"));
    to.sql("postgres", "CREATE ROLE reader NOLOGIN CONNECTION LIMIT 3");
    let said = machine.run(&["restore", "latest", "--to", &to.address("shop2")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("left as they are"), "{}", said.stderr);
    assert!(said.stderr.contains("reader"), "{}", said.stderr);
    assert!(!said.stderr.contains("secret"), "{}", said.stderr);

    assert_eq!(to.text("shop2"), from.text("shop"));
    let whole = "SELECT pg_get_userbyid(datdba), datacl, datconnlimit, shobj_description(oid, 'pg_database')
                 FROM pg_database WHERE datname LIKE 'shop%'";
    assert_eq!(to.sql("postgres", whole), from.sql("postgres", whole));
    let settings = "SELECT setrole::regrole, setconfig FROM pg_db_role_setting ORDER BY 1::text, 2";
    assert_eq!(to.sql("postgres", settings), from.sql("postgres", settings));
    let password = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'the%'";
    assert_eq!(to.sql("postgres", password), from.sql("postgres", password));
    let members =
        "SELECT roleid::regrole, member::regrole FROM pg_auth_members WHERE member = 'app'::regrole";
    assert_eq!(to.sql("postgres", members), from.sql("postgres", members));
    // A role that was there is left alone, until told otherwise.
    let limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'reader'";
    assert_eq!(to.sql("postgres", limit), "3");
    let said =
        machine.run(&["restore", "latest", "--to", &to.address("shop2"), "--force", "--replace-roles"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(to.sql("postgres", limit), "-1");
}

#[test]
fn all_databases_are_one_snapshot_and_go_back_together_or_alone() {
    let (from, to) = (Postgres::start(15, ""), Postgres::start(15, ""));
    from.sql("postgres", "CREATE DATABASE a; CREATE DATABASE \"B/b.. ü\"; CREATE DATABASE closed");
    from.sql("a", "CREATE TABLE t AS SELECT 1 AS one");
    from.sql("B/b.. ü", "CREATE TABLE t AS SELECT 2 AS two");
    from.sql("postgres", "ALTER DATABASE closed ALLOW_CONNECTIONS false");
    let machine = Machine::with_repository();
    let said = back_up(&machine, &from.address("*"));
    assert!(said.contains("\"closed\" was left out"), "{said}");
    let listed = machine.run(&["ls", "latest"]).stdout;
    for path in ["/databases/a.dump", "/databases/B%2Fb.. %C3%BC.dump", "/globals.sql"] {
        assert!(listed.contains(path), "{listed}");
    }

    // Which one, where only one can be meant?
    let said = machine.run(&["restore", "latest", "--to", &to.address("one")]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(
        said.stderr.contains("holds several databases") && said.stderr.contains("hint: "),
        "{}",
        said.stderr
    );
    // Selected alone it brings the roles it needs, too.
    from.sql("a", "CREATE ROLE needed; CREATE TABLE owned (); ALTER TABLE owned OWNER TO needed");
    back_up(&machine, &from.address("*"));
    let said = machine.run(&["restore", "latest:/databases/a.dump", "--to", &to.address("one")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(to.sql("one", "SELECT one FROM t"), "1");
    let owner = "SELECT relowner::regrole FROM pg_class WHERE relname = 'owned'";
    assert_eq!(to.sql("one", owner), "needed");

    // A list, then all of them.
    let said = machine.run(&["restore", "latest", "--to", &to.address("a")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = machine.run(&["restore", "latest", "--to", &to.address("*")]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    // Also the database that is connected to for the whole server.
    let said = machine.run(&["restore", "latest", "--to", &to.address("*"), "--force"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(to.sql("B/b.. ü", "SELECT two FROM t"), "2");
    assert_eq!(to.sql("template1", "SELECT count(*) FROM pg_database WHERE datname LIKE '%lifeboat%'"), "0");
}

#[test]
fn a_dump_goes_into_pg_restore_as_it_is() {
    let postgres = shared(15);
    let (source, target) = (postgres.database(), postgres.database());
    postgres.sql(&source, EVERYTHING);
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source));
    let file = machine.path("x.dump");
    let what = format!("latest:/databases/{source}.dump");
    let said = machine.run(&["dump", &what, "-o", file.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let mut restore = postgres.tool("pg_restore", &target);
    let said = restore.args(["--exit-on-error", "-d", &target]).stdin(std::fs::File::open(&file).unwrap());
    let said = said.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(postgres.text(&target), postgres.text(&source));
}

#[test]
fn what_is_left_out_is_left_out_and_said() {
    let postgres = shared(15);
    let source = postgres.database();
    postgres.sql(
        &source,
        "CREATE SCHEMA s; CREATE TABLE s.kept AS SELECT 1 AS one; CREATE TABLE s.bare AS SELECT 1 AS one;
         CREATE TABLE public.gone AS SELECT 1 AS one",
    );
    let machine = Machine::with_repository();
    back_up(&machine, &format!("{}?schema=s&exclude-table-data=s.bare", postgres.address(&source)));
    let target = postgres.vacant();
    let said = restore(&machine, "latest", &postgres.address(&target));
    assert!(said.contains("not provable: s.bare: left out of the capture"), "{said}");
    let tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace >= 16384 ORDER BY 1";
    assert_eq!(postgres.sql(&target, tables), "bare\nkept");
    assert_eq!(postgres.sql(&target, "SELECT count(*) FROM s.bare"), "0");
}

#[test]
fn an_archive_goes_into_a_newer_server() {
    let (from, to) = (shared(15), shared(18));
    let source = from.database();
    from.sql(&source, EVERYTHING);
    let machine = Machine::with_repository();
    back_up(&machine, &from.address(&source));
    let target = to.vacant();
    restore(&machine, "latest", &to.address(&target));
    let count = "SELECT count(*), min(d) FROM made";
    assert_eq!(to.sql(&target, count), from.sql(&source, count));
}
