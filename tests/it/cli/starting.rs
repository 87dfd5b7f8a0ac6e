//! The first file that `config init` writes, and the schema that editors check it by.

use std::path::Path;

use serde_json::{Value, json};

use super::Machine;

/// As much of JSON Schema as ours uses: what is wrong, or nothing.
fn wrong(value: &Value, schema: &Value, root: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = root.pointer(reference.strip_prefix('#').unwrap());
        return wrong(value, found.unwrap_or_else(|| panic!("{reference}")), root, at);
    }
    for choices in ["anyOf", "oneOf"] {
        if let Some(all) = schema[choices].as_array() {
            let found: Vec<_> = all.iter().map(|one| wrong(value, one, root, at)).collect();
            if found.iter().all(Option::is_some) {
                return found.into_iter().flatten().next();
            }
        }
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |wanted: &Value| wanted == kind || (kind == "integer" && wanted == "number");
    let is_kind = match &schema["type"] {
        Value::Null => true,
        Value::Array(all) => all.iter().any(fits),
        one => fits(one),
    };
    if !is_kind {
        return Some(format!("{at} is {kind}, not {}", schema["type"]));
    }
    for (fixed, all) in [
        ("enum", schema["enum"].as_array().cloned()),
        ("const", schema.get("const").map(|one| vec![one.clone()])),
    ] {
        if all.is_some_and(|all| !all.contains(value)) {
            return Some(format!("{at} is none of {fixed} {}", schema[fixed]));
        }
    }
    match value {
        Value::Array(all) => all
            .iter()
            .enumerate()
            .find_map(|(n, one)| wrong(one, &schema["items"], root, &format!("{at}/{n}"))),
        Value::Object(all) => {
            let required = schema["required"].as_array().into_iter().flatten();
            if let Some(missing) = required.filter_map(Value::as_str).find(|key| !all.contains_key(*key)) {
                return Some(format!("{at} lacks {missing}"));
            }
            all.iter().find_map(|(key, one)| {
                let at = format!("{at}/{key}");
                match (schema["properties"].get(key), &schema["additionalProperties"]) {
                    (Some(of), _) => wrong(one, of, root, &at),
                    (None, Value::Bool(false)) => Some(format!("{at} is no key")),
                    (None, of @ Value::Object(_)) => wrong(one, of, root, &at),
                    _ => None,
                }
            })
        }
        _ => None,
    }
}

fn schema() -> Value {
    let said = Machine::new().run(&["config", "schema"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.json()
}

fn check(text: &str, schema: &Value) -> Option<String> {
    let value: toml::Table = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    wrong(&serde_json::to_value(value).unwrap(), schema, schema, "")
}

#[test]
fn a_first_file_works_as_it_stands_and_is_never_overwritten() {
    let machine = Machine::new();
    machine.file("compose.yaml", "name: shop\nservices:\n  db:\n    image: postgres:16\n");
    let repository = machine.path("backups");
    let init = ["config", "init", "conf/lifeboat.toml", "-r", repository.to_str().unwrap()];
    let run = |arguments: &[&str]| {
        let only_file = [
            ("LIFEBOAT_CONFIG", "conf/lifeboat.toml"),
            ("LIFEBOAT_REPOSITORY", ""),
            ("LIFEBOAT_PASSWORD", ""),
        ];
        machine.run_with(&only_file, arguments)
    };
    let said = run(&init);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for line in [
        "wrote $T/conf/lifeboat.toml",
        "with the Compose projects shop",
        "export LIFEBOAT_CONFIG=",
        "umask 077",
    ] {
        assert!(said.stdout.contains(line), "{line}: {}", said.stdout);
    }
    let text = std::fs::read_to_string(machine.path("conf/lifeboat.toml")).unwrap();
    assert!(text.contains("# source   = \"postgres://db@shop/*\""), "{text}");
    assert_eq!(check(&text, &schema()), None);
    let said = run(&init);
    assert_eq!(said.code, 11, "{}", said.stdout);
    assert!(said.stderr.contains("never overwritten\nhint: "), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(machine.path("conf/lifeboat.toml")).unwrap(), text);

    // What it says to do next, with a smaller folder than this machine's.
    let text = text.replace("source   = \"/etc\"", &format!("source   = {:?}", machine.path("conf")));
    machine.file("conf/lifeboat.toml", text);
    machine.file("conf/password", "right\n");
    for (arguments, told) in [
        (&["config", "check"][..], "1 repository, 2 jobs, 1 stack, 1 drill, all understood"),
        (&["init", "--argon-memory", "8M", "--argon-passes", "1"], "created repository"),
        (&["run", "--all"], "snapshot"),
        (&["drill", "run", "--all"], "Result: PASSED"),
        (&["plan"], "met"),
    ] {
        let said = run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains(told), "{arguments:?}: {}", said.stdout);
    }
}

#[test]
fn the_schema_takes_what_the_pages_show_and_no_typo() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut seen = 0;
    for page in ["configuration.md", "drills.md", "runbooks.md"] {
        let text = std::fs::read_to_string(docs.join(page)).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            assert_eq!(check(block, &schema), None, "{page}:\n{block}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} blocks were found");
    let both = "[defaults]\ncopy-to = [\"a\"]\n[job.a]\nsource = \"/a\"\ncopy_to = []\nexclude_caches = true\n\
                [repository.a]\nurl = \"/r\"\npassword = { key_file = \"k\" }\n";
    assert_eq!(check(both, &schema), None);
    for typo in [
        "[jbo.a]\nsource = \"/a\"\n",
        "[job.a]\nsource = 3\n",
        "[job.a]\nschedule = \"0 2 * * *\"\n",
        "[job.a]\nsource = \"/a\"\nscedule = \"0 2 * * *\"\n",
        "[machine.a]\nduties = [\"bakup\"]\n",
        "[repository.a]\nurl = \"/r\"\npassword = { fil = \"x\" }\n",
        "[drill.a]\nrestore = \"a@latest\"\nchecks = [{ sqll = \"select 1\" }]\n",
        "[stack.a]\ndb = { rto = 3 }\n",
    ] {
        assert!(check(typo, &schema).is_some(), "{typo}");
    }
    assert_eq!(
        wrong(&json!("a"), &json!({ "type": "integer" }), &schema, ""),
        Some(" is string, not \"integer\"".into())
    );
}
