//! The shape of the file as a JSON schema, for editors that complete and check TOML by one.
//!
//! Made from the very types that read the file, so it knows every key there is; what keys mean together only
//! `config check` tells.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::Value;

use super::File;
use super::model::{OneOrMany, SecretReference};

/// The schema, in JSON Schema's draft of 2020-12.
pub fn schema() -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    let mut schema = schema.to_value();
    schema["title"] = "lifeboat.toml".into();
    both_spellings(&mut schema);
    schema
}

/// Keys of two words may be written with a dash or an underscore.
fn both_spellings(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(both_spellings),
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                let twins: Vec<(String, Value)> = properties
                    .iter()
                    .filter(|(key, _)| key.contains(['-', '_']))
                    .map(|(key, of)| {
                        let twin =
                            if key.contains('-') { key.replace('-', "_") } else { key.replace('_', "-") };
                        (twin, of.clone())
                    })
                    .collect();
                properties.extend(twins);
            }
            fields.values_mut().for_each(both_spellings);
        }
        _ => {}
    }
}

impl JsonSchema for OneOrMany {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Source".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "description": "A path, or a service's address." },
            { "type": "array", "items": { "type": "string" }, "description": "Paths." },
        ] })
    }
}

impl JsonSchema for SecretReference {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretReference".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object", "description": "Where a secret is: one of these.", "additionalProperties": false,
            "minProperties": 1, "maxProperties": 1,
            "properties": {
                "file": { "type": "string", "description": "A file whose content it is." },
                "command": { "type": "string", "description": "A shell command that prints it." },
                "env": { "type": "string", "description": "A variable of the environment." },
                "credential": { "type": "string", "description": "A credential that systemd hands over." },
                "key-file": { "type": "string", "description": "A key file instead of a password." },
            },
        })
    }
}
