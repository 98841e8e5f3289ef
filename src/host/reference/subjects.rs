//! The reference by subject: a namespace, a type, or what has neither, each with its functions; overloads are one group.

use super::topics::Topics;
use super::{Docs, Function, Reference, Role};

/// What a page is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Namespace,
    Type,
    /// Functions that stand by themselves.
    Globals,
}

pub struct Subject<'a> {
    pub kind: Kind,
    /// Empty for [`Kind::Globals`].
    pub name: String,
    /// Its example is what the examples of all groups begin with.
    pub docs: Docs,
    /// In the order of role and name.
    pub groups: Vec<Group<'a>>,
}

/// All that is called by one name in one way; a property's getter and setter are one.
pub struct Group<'a> {
    pub name: &'a str,
    /// Of its first function.
    pub role: Role,
    pub functions: Vec<&'a Function>,
}

impl<'a> Group<'a> {
    /// The overloads' doc comments, each once, the fullest first: `The same with …` follows what it is the same as.
    pub fn docs(&self) -> Vec<(Vec<&'a Function>, &'a Docs)> {
        let mut docs: Vec<(Vec<&'a Function>, &'a Docs)> = Vec::new();
        for function in &self.functions {
            match docs.iter_mut().find(|(_, known)| known.text == function.docs.text) {
                Some((functions, _)) => functions.push(function),
                None => docs.push((vec![function], &function.docs)),
            }
        }
        docs.sort_by_key(|(_, docs)| docs.text.starts_with("The same"));
        docs
    }

    /// Examples of all overloads.
    pub fn examples(&self) -> impl Iterator<Item = &'a str> {
        self.functions.iter().filter_map(|function| function.docs.example.as_deref())
    }

    /// Up to the end of the first sentence, on one line.
    pub fn summary(&self) -> String {
        self.docs().first().map(|(_, docs)| docs.summary()).unwrap_or_default()
    }
}

impl Docs {
    /// The first sentence, on one line; that of a list's introduction ends before the list.
    pub fn summary(&self) -> String {
        let paragraph = self.text.split("\n\n").next().unwrap_or_default();
        let line = paragraph.lines().take_while(|line| !line.starts_with("- ")).collect::<Vec<_>>().join(" ");
        // A point ends a sentence if a capital or a quoted name follows: not in `et al. 2022`.
        let ends = |at: &usize| line[at + 2..].starts_with(|c: char| c.is_uppercase() || c == '`');
        let end = line.match_indices(". ").map(|(at, _)| at).find(ends);
        let sentence = end.map_or(line.as_str(), |at| &line[..at]);
        sentence.trim().trim_end_matches(['.', ':']).to_owned()
    }
}

impl Function {
    /// Whether it does what another does, for Rhai's own use: `print(x)` calls `to_string`, `debug(x)` calls `to_debug`.
    fn is_twin(&self) -> bool {
        self.role == Role::Function && self.name == "to_debug"
    }
}

impl Reference {
    /// All of ours by subject, in the order of [`Kind`] and name.
    pub fn subjects(&self, topics: &Topics) -> Vec<Subject<'_>> {
        let mut subjects: Vec<Subject> = Vec::new();
        for (name, docs) in &topics.namespaces {
            subjects.push(Subject::new(Kind::Namespace, name, docs));
        }
        for (name, docs) in &topics.types {
            subjects.push(Subject::new(Kind::Type, name, docs));
        }
        subjects.push(Subject::new(Kind::Globals, "", &Docs::default()));
        for function in self.functions.iter().filter(|function| !function.standard && !function.is_twin()) {
            let (kind, name) = place(function, topics);
            if let Some(subject) = subjects.iter_mut().find(|subject| subject.kind == kind && subject.name == name) {
                subject.add(function);
            }
        }
        for subject in &mut subjects {
            subject.groups.sort_by_key(|group| (order(group.role), group.name));
        }
        subjects
    }
}

impl<'a> Subject<'a> {
    fn new(kind: Kind, name: &str, docs: &Docs) -> Self {
        Self { kind, name: name.to_owned(), docs: docs.clone(), groups: Vec::new() }
    }

    fn add(&mut self, function: &'a Function) {
        let key = |role, name: &'a str| (order(role), if order(role) == order(Role::IndexGetter) { "" } else { name });
        let found =
            self.groups.iter_mut().find(|group| key(group.role, group.name) == key(function.role, &function.name));
        match found {
            Some(group) => group.functions.push(function),
            None => {
                self.groups.push(Group { name: &function.name, role: function.role, functions: vec![function] });
            }
        }
    }
}

/// Where a function is to be found.
fn place<'a>(function: &'a Function, topics: &Topics) -> (Kind, &'a str) {
    if !function.namespace.is_empty() {
        return (Kind::Namespace, &function.namespace);
    }
    let is_ours = |kind: &str| topics.types.contains_key(kind);
    let mut kinds = function.params.iter().map(|param| param.kind.as_str());
    let receiver = match function.role {
        Role::Operator => kinds.find(|kind| is_ours(kind)),
        _ => kinds.next().filter(|kind| is_ours(kind)),
    };
    receiver.map_or((Kind::Globals, ""), |kind| (Kind::Type, kind))
}

/// Sections of a page: properties, functions or methods, indexing, operators.
pub fn order(role: Role) -> u8 {
    match role {
        Role::Getter | Role::Setter => 0,
        Role::Function => 1,
        Role::IndexGetter | Role::IndexSetter => 2,
        Role::Operator => 3,
    }
}
