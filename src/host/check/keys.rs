//! Keys of maps that are written out: options of functions, settings of recipes.
//!
//! The options are those that functions document, the settings those that the modules themselves answer with.

use std::cell::RefCell;
use std::collections::HashMap;

use rhai::{Array, Engine, Expr, FnCallExpr, Ident, Scope};

use super::names::Walker;
use super::project::{File, Own};
use crate::host::errors::Failure;
use crate::host::suggest::did_you_mean;

/// The function of a std module that makes a recipe, and those that know what it takes.
const RECIPE: &str = "recipe";
const RECIPES: &str = "recipes";
const SETTINGS: &str = "settings";

/// Settings that are maps of options, with the function whose options they are.
const MAPS: [(&str, &str); 2] = [("dbp", "decorrelate"), ("energy", "energy::meter")];

/// The function of a module and its argument.
type Question = (String, String);

/// Names out of std modules, asked for once; `None` where the module has no such function.
#[derive(Default)]
pub struct Answers(RefCell<HashMap<Question, Option<Vec<String>>>>);

impl Answers {
    /// What `function(argument)` of a std module answers, or `function()`.
    fn of(&self, engine: &Engine, file: &File, function: &str, argument: Option<&str>) -> Option<Vec<String>> {
        let key = (format!("{} {function}", file.key), argument.unwrap_or_default().to_owned());
        if let Some(known) = self.0.borrow().get(&key) {
            return known.clone();
        }
        let count = usize::from(argument.is_some());
        let exists = file.functions.iter().any(|own| own.name == function && own.params.len() == count);
        let answer = exists.then(|| match argument {
            Some(argument) => engine.call_fn::<Array>(&mut Scope::new(), &file.ast, function, (argument.to_owned(),)),
            None => engine.call_fn::<Array>(&mut Scope::new(), &file.ast, function, ()),
        });
        let names = answer.and_then(Result::ok).map(|names| names.into_iter().map(|name| name.to_string()).collect());
        self.0.borrow_mut().insert(key, names.clone());
        names
    }
}

impl Walker<'_> {
    /// The keys of maps among the arguments of a call that is in order otherwise.
    pub fn check_keys(&mut self, call: &FnCallExpr, name: &str) {
        for (at, argument) in call.args.iter().enumerate() {
            let maps = literal_maps(argument);
            if maps.is_empty() {
                continue;
            }
            let Some(keys) = self.known.option_keys(name, call.args.len(), at) else { continue };
            for (key, _) in maps.into_iter().flatten() {
                self.check_option(name, &keys, key);
            }
        }
    }

    /// The keys of the last argument, where a function that is written in Rhai documents its options.
    pub fn check_own_keys(&mut self, call: &FnCallExpr, file: &File, name: &str) {
        let called = |own: &&Own| own.name == call.name.as_str() && own.params.len() == call.args.len();
        let Some(own) = file.functions.iter().find(called).filter(|own| !own.options.is_empty()) else { return };
        for (key, _) in call.args.last().map(literal_maps).unwrap_or_default().into_iter().flatten() {
            self.check_option(name, &own.options, key);
        }
    }

    fn check_option(&mut self, name: &str, keys: &[String], key: &Ident) {
        if !keys.iter().any(|known| known == key.as_str()) {
            let hint = did_you_mean(key.as_str(), keys.iter().map(String::as_str))
                .unwrap_or_else(|| format!("{name} takes {}", keys.join(", ")));
            let failure = Failure::script(format!("{name}: no option is named {}", key.as_str()));
            self.error("unknown-option", failure.with_hint(hint), key.pos, Some(key.as_str()));
        }
    }

    /// Name and settings of `recipe(name, #{ … })` of a std module.
    pub fn check_recipe(&mut self, call: &FnCallExpr, file: &File) {
        if !file.is_std() || call.name != RECIPE {
            return;
        }
        let (engine, answers) = (self.project.engine, &self.known.answers);
        let Some(recipes) = answers.of(engine, file, RECIPES, None) else { return };
        let chosen: Vec<String> = match call.args.first() {
            Some(Expr::StringConstant(name, _)) if recipes.iter().any(|known| known == name.as_str()) => {
                vec![name.to_string()]
            }
            Some(Expr::StringConstant(name, place)) => {
                let hint = did_you_mean(name, recipes.iter().map(String::as_str))
                    .unwrap_or_else(|| format!("there are {}", recipes.join(", ")));
                let failure = Failure::script(format!("recipe: none is named \"{name}\"")).with_hint(hint);
                return self.error("unknown-recipe", failure, *place, None);
            }
            _ => recipes,
        };
        let mut known: Vec<String> = Vec::new();
        for name in &chosen {
            known.extend(answers.of(engine, file, SETTINGS, Some(name)).unwrap_or_default());
        }
        known.sort_unstable();
        known.dedup();
        if known.is_empty() {
            return;
        }
        for (key, value) in call.args.get(1).map(literal_maps).unwrap_or_default().into_iter().flatten() {
            if let Some((_, function)) = MAPS.iter().find(|(setting, _)| *setting == key.as_str()) {
                let Some(keys) = self.known.reference.option_keys(function) else { continue };
                for (key, _) in literal_maps(value).into_iter().flatten() {
                    self.check_option(function, &keys, key);
                }
            }
            if known.iter().any(|known| known == key.as_str()) {
                continue;
            }
            let hint = did_you_mean(key.as_str(), known.iter().map(String::as_str))
                .unwrap_or_else(|| format!("there are {}", known.join(", ")));
            let failure = Failure::script(format!("recipe: no setting is named {}", key.as_str())).with_hint(hint);
            self.error("unknown-setting", failure, key.pos, Some(key.as_str()));
        }
    }
}

/// The entries of maps that are written out in an expression: in full, or added with `+`.
fn literal_maps(expr: &Expr) -> Vec<&[(Ident, Expr)]> {
    match expr {
        Expr::Map(map, _) => vec![&map.0],
        Expr::FnCall(call, _) if call.is_operator_call() && call.name == "+" => {
            call.args.iter().flat_map(literal_maps).collect()
        }
        _ => Vec::new(),
    }
}
