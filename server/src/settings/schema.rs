//! The JSON schema of the settings file, for editors.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::table::ALL;

/// The schema, made from the table.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut root = Map::new();
    let mut sections: Map<String, Value> = Map::new();
    for entry in ALL {
        let mut schema = entry.schema(&mut generator);
        let description = format!("{} [default: {}]", entry.help(), entry.default_text());
        schema.insert("description".to_owned(), Value::String(description));
        let schema = schema.to_value();
        match entry.key().split_once('.') {
            None => {
                root.insert(entry.key().to_owned(), schema);
            }
            Some((section, name)) => {
                let section = sections
                    .entry(section)
                    .or_insert_with(|| json!({}))
                    .as_object_mut();
                section.map(|keys| keys.insert(name.to_owned(), schema));
            }
        }
    }
    for (name, keys) in sections {
        root.insert(
            name,
            json!({ "type": "object", "additionalProperties": false, "properties": keys }),
        );
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of Orlop",
        "type": "object",
        "additionalProperties": false,
        "properties": root,
    })
}
