//! What is said of namespaces and types where they are registered: the doc comment of an exported `mod`, and that of a
//! `pub type NAME = …` in one.
//!
//! The example in such a comment is the setup of a page: the examples of all functions on it begin with it.

use std::collections::BTreeMap;

use rhai::Engine;
use serde_json::Value;

use super::Docs;

/// Doc comments by name; one that is missing is empty.
#[derive(Default)]
pub struct Topics {
    pub namespaces: BTreeMap<String, Docs>,
    /// Types of ours.
    pub types: BTreeMap<String, Docs>,
}

impl Topics {
    /// What `engine` has registered. Rhai tells it in JSON alone.
    pub fn of(engine: &Engine) -> Self {
        let mut topics = Self::default();
        let json = engine.gen_fn_metadata_to_json(false).unwrap_or_default();
        let all: Value = serde_json::from_str(&json).unwrap_or_default();
        topics.add_types(&all);
        for (name, module) in all["modules"].as_object().into_iter().flatten() {
            topics.add_types(module);
            let doc = module["doc"].as_str().unwrap_or_default();
            topics.namespaces.insert(name.clone(), Docs::parse(std::iter::once(doc)));
        }
        topics
    }

    fn add_types(&mut self, module: &Value) {
        for kind in module["customTypes"].as_array().into_iter().flatten() {
            let name = kind["displayName"].as_str().unwrap_or_default();
            if ["int", "float"].contains(&name) {
                continue; // Rhai's own under the names that scripts know.
            }
            let comments = kind["docComments"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let docs = Docs::parse(comments);
            let known = self.types.entry(name.to_owned()).or_default();
            if known.text.is_empty() {
                *known = docs;
            }
        }
    }
}
