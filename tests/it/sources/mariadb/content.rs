//! What must survive, beside rows: everything a schema has, users, and one moment under a writer.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::mariadb::{Maria, shared};

/// Everything a database can hold that a dump knows, with names that need care.
const TABLES: &str = "
    CREATE TABLE par (id int PRIMARY KEY);
    CREATE TABLE chi (id int PRIMARY KEY, p int, CONSTRAINT fk FOREIGN KEY (p) REFERENCES par (id));
    INSERT INTO par VALUES (1), (2); INSERT INTO chi VALUES (1, 1);
    CREATE TABLE kinds (id int PRIMARY KEY AUTO_INCREMENT, bi bit(9), f float, d double, dc decimal(30,10), ts
        timestamp(6) NULL, dt datetime(6), y year, e enum('a','b'), s set('x','y'), j json, g geometry, b longblob, u
        varchar(50) CHARACTER SET utf8mb4, gen int AS (bi + 1) STORED, v int AS (bi + 2) VIRTUAL, nn point NOT NULL, KEY
        (u), SPATIAL KEY (nn)) COMMENT='it''s; \\n (a)' AUTO_INCREMENT = 77;
    INSERT INTO kinds (bi, f, d, dc, ts, dt, y, e, s, j, g, b, u, nn) VALUES (5, 1.1, 1e300/3, 123456789.0123456789,
        '2026-03-29 01:30:00.123456', now(6), 2026, 'b', 'x,y', '{\"a\": [1, \"x\"]}', point(1, 2), x'00ff27225c0a',
        'Smørrebrød 🛟', point(0, 0)), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        point(3, 4));
    CREATE TABLE parts (a int, b int) PARTITION BY HASH (a) PARTITIONS 3;
    INSERT INTO parts SELECT seq, -seq FROM seq_1_to_50;
    CREATE TABLE `odd; ``x VALUES (` (`col '` int); INSERT INTO `odd; ``x VALUES (` VALUES (1);
    CREATE SEQUENCE numbers START 5; DO NEXTVAL(numbers);
    CREATE TABLE numbered (n bigint DEFAULT NEXTVAL(numbers), t text); INSERT INTO numbered (t) VALUES ('a');
";
/// The client's own delimiter is needed for bodies with several statements.
const OBJECTS: &str = "DELIMITER ;;
CREATE TRIGGER t1 BEFORE INSERT ON par FOR EACH ROW BEGIN SET NEW.id = NEW.id + 0; /* don't; */ END;;
CREATE PROCEDURE p() BEGIN SELECT 1; -- it's
 SELECT ';'; END;;
CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 3;;
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM par WHERE id = 99; END;;
DELIMITER ;
CREATE VIEW z AS SELECT id, 'a;b' AS t FROM par;
CREATE VIEW a AS SELECT * FROM z;";

/// A database with one of everything.
pub fn full(maria: &Maria) -> String {
    let database = maria.database();
    maria.sql(&database, TABLES);
    maria.sql(&database, OBJECTS);
    database
}

#[test]
fn everything_in_a_schema_comes_back_under_another_name() {
    let maria = shared();
    let (source, target) = (full(maria), maria.vacant());
    let machine = Machine::with_repository();
    let said = back_up(&machine, &maria.address(&source));
    assert!(!said.contains("warning"), "{said}");
    let said = restore(&machine, &["latest", "--to", &maria.address(&target)]);
    assert!(said.contains("row hashes of 6 tables are those of the snapshot"), "{said}");
    assert!(said.contains("2 views, 1 triggers, 2 routines, 1 events, 1 sequences came back"), "{said}");
    assert_eq!(maria.text(&target), maria.text(&source));
    // Nothing leans on the database it came from.
    maria.sql("", &format!("DROP DATABASE {source}"));
    maria.sql(
        &target,
        "INSERT INTO numbered (t) VALUES ('b'); INSERT INTO par VALUES (3); CALL p(); SELECT * FROM a",
    );
    let refused = maria.try_sql(&target, "INSERT INTO chi VALUES (2, 55)");
    assert!(refused.is_err_and(|said| said.contains("foreign key")));
}

#[test]
fn several_databases_are_one_snapshot_with_users_and_their_rights() {
    let maria = Maria::start(&["--skip-name-resolve"]);
    maria.sql(
        "",
        "CREATE DATABASE shop_a CHARACTER SET utf8mb4 COLLATE utf8mb4_bin; CREATE DATABASE `b/c`; CREATE DATABASE `.x`;
         CREATE TABLE shop_a.t (a int); INSERT INTO shop_a.t VALUES (1); CREATE TABLE `b/c`.t (a int);
         CREATE TABLE `.x`.moving (a int) ENGINE=MyISAM; INSERT INTO `.x`.moving VALUES (1);
         CREATE USER app@'%' IDENTIFIED BY 'pa\\'ss'; CREATE ROLE reader; GRANT SELECT ON `shop\\_a`.* TO reader;
         GRANT reader TO app@'%'; SET DEFAULT ROLE reader FOR app@'%'; GRANT UPDATE (a) ON `b/c`.t TO app@'%'",
    );
    let machine = Machine::with_repository();
    let said = back_up(&machine, &maria.address("*"));
    // The server lists users of hosts it cannot name then.
    assert!(said.contains("warning: user root@") && said.contains("was not captured"), "{said}");
    assert!(said.contains("not InnoDB") && said.contains("moving (MyISAM)"), "{said}");
    let listed = machine.run(&["ls", "latest:/databases"]).stdout;
    for name in ["%2Ex.sql", "b%2Fc.sql", "shop_a.sql"] {
        assert!(listed.contains(name), "{listed}");
    }
    let grants = "SHOW GRANTS FOR app@'%'; SHOW CREATE USER app@'%'; SHOW GRANTS FOR reader";
    let before = maria.sql("", grants);
    maria.sql(
        "",
        "DROP DATABASE shop_a; DROP DATABASE `b/c`; DROP DATABASE `.x`; DROP USER app@'%'; DROP ROLE reader",
    );
    let said = restore(&machine, &["latest", "--to", &maria.address("*")]);
    assert!(said.contains("users and roles made, with their rights: "), "{said}");
    assert!(said.contains("left as they are") && said.contains("root@localhost"), "{said}");
    assert_eq!(maria.sql("", grants), before);
    assert_eq!(maria.sql("shop_a", "SELECT @@collation_database"), "utf8mb4_bin");
    assert_eq!(maria.sql(".x", "SELECT * FROM moving"), "1");
    // One of them, under another name: rights follow it.
    let target = maria.address("shop_c");
    restore(&machine, &["latest:/databases/shop_a.sql", "--to", &target]);
    assert_eq!(maria.sql("shop_c", "SELECT * FROM t"), "1");
    let said = machine.run(&["restore", "latest", "--to", &target]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("none is \"shop_c\"") && said.stderr.contains("hint: "), "{}", said.stderr);
    // Plain SQL: any client takes it.
    let dumped = machine.run(&["dump", "latest:/databases/shop_a.sql"]).stdout;
    maria.sql("", "CREATE DATABASE plain");
    maria.sql("plain", &dumped);
    assert_eq!(maria.sql("plain", "SELECT * FROM t"), "1");
}

/// One account cannot be made anew: it is what it was, the others are the snapshot's, and it is named.
#[test]
fn an_account_that_cannot_be_made_anew_stays_what_it_was() {
    let maria = Maria::start(&["--skip-name-resolve"]);
    maria.sql(
        "",
        "CREATE DATABASE shop; CREATE TABLE shop.t (a int); CREATE DATABASE other; CREATE TABLE other.t (a int);
         CREATE ROLE base; GRANT SELECT ON shop.* TO base; CREATE ROLE staff; GRANT base TO staff;
         GRANT INSERT ON shop.t TO staff; CREATE USER member@'%'; GRANT staff TO member@'%';
         CREATE USER a@'%' IDENTIFIED BY 'a'; CREATE USER b@'%' IDENTIFIED BY 'b'; CREATE USER c@'%' IDENTIFIED BY 'c';
         GRANT staff TO a@'%'; SET DEFAULT ROLE staff FOR a@'%'; GRANT SELECT ON other.t TO b@'%'; GRANT UPDATE ON shop.t TO c@'%';
         CREATE ROLE d; GRANT SELECT (a) ON other.t TO d; GRANT SELECT ON other.t TO staff; REVOKE SELECT ON other.t FROM staff;
         CREATE USER fresh@'%'; GRANT SELECT ON other.t TO fresh@'%'; GRANT SELECT ON shop.t TO fresh@'%'",
    );
    let shown = |names: &[&str]| -> String {
        let show = |name: &&str| format!("SHOW GRANTS FOR {name};");
        maria.sql("", &names.iter().map(show).collect::<String>())
    };
    let (good, bad) = (["a@'%'", "c@'%'", "staff", "base"], ["b@'%'", "d"]);
    let captured = shown(&good);
    let machine = Machine::with_repository();
    back_up(&machine, &maria.address("shop"));
    // Since then.
    maria.sql(
        "",
        "DROP DATABASE other; DROP DATABASE shop; ALTER USER a@'%' IDENTIFIED BY 'new'; ALTER USER b@'%' IDENTIFIED BY 'new';
         REVOKE ALL PRIVILEGES, GRANT OPTION FROM b@'%'; GRANT INSERT ON *.* TO b@'%'; GRANT staff TO b@'%';
         GRANT DELETE ON *.* TO c@'%'; GRANT DELETE ON *.* TO staff; DROP USER fresh@'%';
         GRANT INSERT ON *.* TO d; GRANT base TO d; REVOKE SELECT (a) ON other.t FROM d",
    );
    let (before, member) = (shown(&bad), shown(&["member@'%'"]));
    let said = machine.run(&["restore", "latest", "--to", &maria.address("shop"), "--replace-roles"]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    assert_eq!(shown(&good), captured, "{}", said.stderr);
    assert_eq!(shown(&bad), before, "{}", said.stderr);
    assert_eq!(shown(&["member@'%'"]), member, "a role made anew stays with those who have it");
    for line in [
        "user b@% could not be made anew and is what it was: ERROR 1146",
        "role d could not be made anew and is what it was: ERROR 1146",
        "user fresh@% was made, without all of its rights: ERROR 1146",
    ] {
        assert!(said.stderr.contains(line), "{line}: {}", said.stderr);
    }
}

/// Money moves between two tables in transactions all the while: the sum must be what it always is.
#[test]
fn a_capture_beside_a_writer_is_of_one_moment() {
    let maria = shared();
    let source = maria.database();
    maria.sql(
        &source,
        "CREATE TABLE a (id int PRIMARY KEY, cents bigint); CREATE TABLE z LIKE a; CREATE TABLE log (n int AUTO_INCREMENT PRIMARY KEY);
         INSERT INTO a SELECT seq, 100 FROM seq_1_to_5000; INSERT INTO z SELECT seq, 100 FROM seq_1_to_5000;
         CREATE PROCEDURE move(times int) BEGIN DECLARE i int DEFAULT 0; DECLARE r int;
         WHILE i < times DO SET r = 1 + FLOOR(RAND() * 5000), i = i + 1; START TRANSACTION;
         UPDATE a SET cents = cents - 7 WHERE id = r; UPDATE z SET cents = cents + 7 WHERE id = r; INSERT INTO log VALUES (NULL);
         COMMIT; END WHILE; END"
            .replace("CREATE PROCEDURE", "DELIMITER ;;\nCREATE PROCEDURE")
            .as_str(),
    );
    let machine = Machine::with_repository();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                maria.sql(&source, "CALL move(200)");
            }
        });
        let mut rows = Vec::new();
        for _ in 0..2 {
            while maria.sql(&source, "SELECT count(*) > 500 FROM log") == "0" {}
            back_up(&machine, &maria.address(&source));
            let target = maria.vacant();
            let said = restore(&machine, &["latest", "--to", &maria.address(&target)]);
            assert!(said.contains("row hashes of 3 tables"), "{said}");
            let sum = "SELECT (SELECT sum(cents) FROM a) + (SELECT sum(cents) FROM z),
                       (SELECT sum(100 - cents) FROM a) <= 7 * (SELECT count(*) FROM log)";
            assert_eq!(maria.sql(&target, sum), "1000000\t1");
            rows.push(maria.sql(&target, "SELECT count(*) FROM log"));
        }
        stop.store(true, Ordering::Relaxed);
        assert_ne!(rows[0], rows[1], "it did write");
    });
}
