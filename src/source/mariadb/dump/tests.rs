//! Dumps as the tools write them, in any pieces.

use super::*;

const TEXT: &str = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19\n--\n\n/*!40101 SET NAMES utf8mb4 */;\n\
CREATE TABLE `odd `` VALUES (` (\n  `a` int(11) NOT NULL AUTO_INCREMENT COMMENT 'it''s; \\';'\n) ENGINE=InnoDB AUTO_INCREMENT=37 DEFAULT CHARSET=latin1;\n\
INSERT INTO `odd `` VALUES (` (`a`, `VALUES (`) VALUES\n(1,'it\\'s (; \\\\'),\n(2,NULL),\n(3,0x2829);\n\
INSERT INTO `odd `` VALUES (` (`a`, `VALUES (`) VALUES (4,')');\n\
CREATE SEQUENCE `s` start with 1;\nDO SETVAL(`s`, 1, 0);\n\
CREATE TABLE `empty` (\n  `a` int\n) ENGINE=MyISAM;\n\
/*!50003 SET @saved_cs_client      = @@character_set_client */ ;\nDELIMITER ;;\n\
/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 trigger t before insert on x for each row begin set new.a = ';\n;;'; end \n*/;;\nDELIMITER ;\n\
/*!50001 CREATE VIEW `v` AS SELECT\n NULL AS `id` */;\n\
DELIMITER ;;\n/*!50106 CREATE*/ /*!50117 DEFINER=`r`@`h`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY DO select 1 */ ;;\nDELIMITER ;\n\
ALTER DATABASE `sh``op` CHARACTER SET utf8mb4 ;\nDELIMITER ;;\nCREATE DEFINER=`r`@`h` PROCEDURE `p`()\nselect 1 ;;\nDELIMITER ;\n\
/*!50001 DROP VIEW IF EXISTS `v`*/;\n/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`r`@`h` SQL SECURITY DEFINER */\n/*!50001 VIEW `v` AS select ';' AS `id` */;\n\
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;\n\n-- Dump completed\n";

fn follow(pieces: &[&[u8]]) -> Result<(Followed, String), DumpError> {
    let (mut dump, mut out) = (Dump::new(true), Vec::new());
    for piece in pieces {
        dump.push(piece, &mut out)?;
    }
    Ok((dump.finish()?, String::from_utf8(out).unwrap()))
}

#[test]
fn tables_rows_and_objects_are_the_same_in_any_pieces() {
    let bytes = TEXT.as_bytes();
    let (whole, out) = follow(&[bytes]).unwrap();
    let table = &whole.tables["odd ` VALUES ("];
    assert_eq!((table.rows, table.engine.as_str()), (4, "InnoDB"));
    assert_eq!(whole.tables["empty"].rows, 0);
    let expected = Objects { views: 1, triggers: 1, routines: 1, events: 1, sequences: 1 };
    assert_eq!(whole.objects, expected);
    for gone in ["sandbox", "VIEW", "trigger", "EVENT", "PROCEDURE", "ALTER DATABASE", "50003"] {
        assert!(!out.contains(gone), "{gone}: {out}");
    }
    for there in ["(3,0x2829);", "DO SETVAL", "SET NAMES", "TIME_ZONE", "(4,')');", "ENGINE=MyISAM;"] {
        assert!(out.contains(there), "{there}: {out}");
    }
    let held: Vec<Kind> = whole.held.iter().map(|held| held.kind).collect();
    use Kind::{Event, Routine, Setting, Trigger, View};
    assert_eq!(held, [Setting, Trigger, View, Event, Setting, Routine, View, View]);
    assert!(whole.held[4].text.starts_with(b"ALTER DATABASE CHARACTER SET"));
    for first in 0..bytes.len() {
        let (part, text) = follow(&[&bytes[..first], &bytes[first..]]).unwrap();
        assert_eq!((&part.tables, part.objects, &text), (&whole.tables, whole.objects, &out), "{first}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(follow(&single).unwrap().0.tables, whole.tables);
}

#[test]
fn a_dump_without_its_end_is_none() {
    let end = TEXT.find("-- Dump completed").unwrap();
    for cut in 0..end + 2 {
        assert!(follow(&[&TEXT.as_bytes()[..cut]]).is_err(), "{cut}");
    }
    assert_eq!(follow(&[]).unwrap_err(), DumpError::NoEnd);
}

#[test]
fn rows_have_no_order_and_every_one_counts() {
    let dump = |rows: &str| {
        let text = format!("INSERT INTO `t` VALUES {rows};\n-- Dump completed\n");
        follow(&[text.as_bytes()]).unwrap().0.tables["t"].clone()
    };
    assert_eq!(dump("(1,'a'),(2,'b')"), dump("(2,'b'),\n(1,'a')"));
    assert_ne!(dump("(1,'a'),(2,'b')").hash, dump("(1,'a'),(2,'c')").hash);
    assert_ne!(dump("(1),(1),(2)").hash, dump("(1),(2),(2)").hash);
}

#[test]
fn the_next_number_is_no_part_of_a_definition() {
    let table = |counter: &str| {
        let text = format!(
            "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB{counter} COMMENT='x';\n-- Dump completed\n"
        );
        follow(&[text.as_bytes()]).unwrap().0.tables["t"].definition.clone()
    };
    assert_eq!(table(" AUTO_INCREMENT=7"), table(""));
}

#[test]
fn a_dump_that_names_a_database_is_refused() {
    for text in ["USE `b`;\n", "CREATE DATABASE `b`;\n", "DROP DATABASE `b`;\n"] {
        assert!(matches!(follow(&[text.as_bytes()]), Err(DumpError::Malformed(_))), "{text}");
    }
}

#[test]
fn a_statement_says_what_it_makes() {
    for (text, kind, name) in [
        (
            "DELIMITER ;;\n/*!50003 CREATE*/ /*!50017 DEFINER=`VIEW`@`%`*/ /*!50003 TRIGGER g BEFORE INSERT ON t */;;\nDELIMITER ;\n",
            "TRIGGER",
            "g",
        ),
        ("CREATE DEFINER=`a``b TABLE`@`h` FUNCTION `o``f`() RETURNS int RETURN 1", "FUNCTION", "o`f"),
        (
            "create trigger if not exists \"a b\".\"c\"\"d\" before insert on t for each row do 1",
            "TRIGGER",
            "c\"d",
        ),
        ("CREATE DEFINER=`a`@`h` PACKAGE BODY `p` AS", "PACKAGE BODY", "p"),
        ("/*!50001 DROP VIEW IF EXISTS `ü`*/;", "VIEW", "ü"),
        (
            "/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`r`@`l` SQL SECURITY DEFINER */\n/*!50001 VIEW `v` AS select 'TABLE `x`' */;",
            "VIEW",
            "v",
        ),
    ] {
        assert_eq!(subject(text.as_bytes()), Some((kind.into(), name.into())), "{text}");
    }
    for text in ["", "SET NAMES utf8", "CREATE VIEW", "CREATE VIEW `open", "VIEW 'a\\"] {
        assert_eq!(subject(text.as_bytes()), None, "{text}");
    }
}
