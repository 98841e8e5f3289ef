//! Calls as script text: a function of the reference with arguments that mostly fit, or one of the language's own forms.

use std::collections::BTreeMap;

use dbp_host::host::reference::{Function, Param, Reference, Role};

use super::dice::{self, Dice};
use super::options;

/// What is called, and how.
pub struct Call {
    /// The function's number in [`Calls::functions`]; none for the language's own forms.
    pub function: Option<usize>,
    /// An expression, or, of a setter, a statement.
    pub text: String,
}

pub struct Calls {
    reference: Reference,
    pub functions: Vec<Function>,
    ours: Vec<usize>,
    rhais: Vec<usize>,
}

/// What the language does without a function of the reference; `$` is a value.
const FORMS: [&str; 40] = [
    "$ + $",
    "$ - $",
    "$ * $",
    "$ / $",
    "$ % $",
    "$ ** $",
    "$ == $",
    "$ < $",
    "$ >= $",
    "$ & $",
    "$ | $",
    "$ ^ $",
    "$ << $",
    "$ >> $",
    "-$",
    "!$",
    "$ in $",
    "$ ?? $",
    "`${$} and ${$}`",
    "$[$]",
    "$[$][$]",
    "$[$] = $",
    "$?[$]",
    "$.shape",
    "$.len()",
    "$.$w",
    "$.$w = $",
    "$.$w($)",
    "type_of($)",
    "is_shared($)",
    "Fn($)",
    "call($, $)",
    "$.call($, $)",
    "curry($, $)",
    "print($)",
    "debug($)",
    "[$, $].sort()",
    "[$, $, $].map(|x| x.to_string())",
    "{ let x = $; x += $; x }",
    "{ let n = 0; for x in $ { n += 1; if n > 3 { break; } } n }",
];

const WORDS: [&str; 12] =
    ["shape", "step", "lr", "images", "a", "message", "tag", "layers", "start", "dir", "names", "classes"];

impl Calls {
    pub fn new(reference: Reference) -> Self {
        let functions = reference.functions.clone();
        let (rhais, ours) = (0..functions.len()).partition(|at| functions[*at].standard);
        Self { reference, functions, ours, rhais }
    }

    pub fn random(&self, dice: &mut Dice, by_kind: &BTreeMap<String, Vec<String>>) -> Call {
        let mut maker = Maker { dice, by_kind, reference: &self.reference };
        if maker.dice.percent(6) {
            let form = maker.dice.pick(&FORMS);
            return Call { function: None, text: maker.form(form) };
        }
        let from = if maker.dice.percent(65) { &self.ours } else { &self.rhais };
        let at = maker.dice.choose(from).copied().expect("functions of both sorts are registered");
        Call { function: Some(at), text: maker.call(&self.functions[at]) }
    }
}

struct Maker<'a> {
    dice: &'a mut Dice,
    by_kind: &'a BTreeMap<String, Vec<String>>,
    reference: &'a Reference,
}

impl Maker<'_> {
    fn form(&mut self, form: &str) -> String {
        let mut text = String::new();
        let mut rest = form;
        while let Some((before, after)) = rest.split_once('$') {
            text.push_str(before);
            if let Some(after) = after.strip_prefix('w') {
                text.push_str(self.dice.pick(&WORDS));
                rest = after;
            } else if after.starts_with('{') {
                text.push('$'); // Of a text with code in it.
                rest = after;
            } else {
                text.push_str(&self.anything());
                rest = after;
            }
        }
        text + rest
    }

    fn call(&mut self, function: &Function) -> String {
        let mut arguments: Vec<String> = Vec::new();
        for param in &function.params {
            let argument = if function.name == "sleep" {
                // Waiting is what it is for.
                self.dice.pick(&["0", "0.001", "-1", "(0.0 / 0.0)", "-1e308", "word"]).to_owned()
            } else if self.dice.percent(88) {
                self.fitting(function, param)
            } else {
                self.anything()
            };
            arguments.push(argument);
        }
        // One argument too few or too many.
        if function.role == Role::Function {
            match self.dice.below(50) {
                0 => drop(arguments.pop()),
                1 => arguments.push(self.anything()),
                _ => {}
            }
        }
        let name = &function.name;
        let at = |n: usize| arguments.get(n).map_or("()", String::as_str);
        match function.role {
            Role::Getter => format!("{}.{name}", at(0)),
            Role::Setter => format!("{}.{name} = {}", at(0), at(1)),
            Role::IndexGetter => format!("{}[{}]", at(0), at(1)),
            Role::IndexSetter => format!("{}[{}] = {}", at(0), at(1), at(2)),
            Role::Operator if arguments.len() == 1 => format!("({name}{})", at(0)),
            Role::Operator if name.ends_with('=') && !["==", "!=", "<=", ">="].contains(&name.as_str()) => {
                format!("{{ let x = {}; x {name} {}; x }}", at(0), at(1))
            }
            Role::Operator => format!("({} {name} {})", at(0), at(1)),
            Role::Function if function.namespace.is_empty() && !arguments.is_empty() && self.dice.percent(60) => {
                format!("{}.{name}({})", at(0), arguments[1..].join(", "))
            }
            Role::Function => format!("{}({})", function.full_name(), arguments.join(", ")),
        }
    }

    /// A variable of this type, if there is one.
    fn variable(&mut self, kind: &str) -> Option<String> {
        self.by_kind.get(kind).and_then(|names| self.dice.choose(names)).cloned()
    }

    fn anything(&mut self) -> String {
        let kinds: Vec<&String> = self.by_kind.keys().collect();
        let kind = (*self.dice.choose(&kinds).expect("the set-up made variables")).clone();
        match self.dice.percent(50).then(|| self.variable(&kind)).flatten() {
            Some(name) => name,
            None => parenthesized(dice::literal(self.dice, 2)),
        }
    }

    /// A value of the parameter's type, or, where any will do, one that suits its name.
    fn fitting(&mut self, function: &Function, param: &Param) -> String {
        let (kind, name) = (param.kind.as_str(), param.name.as_str());
        match kind {
            "int" if name.contains("dim") => self.dice.pick(&["0", "1", "-1", "2", "0", "1", "-1", "7"]).to_owned(),
            "int" => self.own("int", dice::int, 15),
            "float" => self.own("float", dice::float, 15),
            "bool" => self.own("bool", dice::bool, 15),
            "char" => self.own("char", dice::character, 15),
            "string" if name.contains("path") => self.path(),
            "string" if name == "pool" => self.dice.pick(&["\"mean\"", "\"class\""]).to_owned(),
            "string" if function.name == "tensor" => {
                self.dice.pick(&["\"linear.weight\"", "\"conv.bias\"", "\"encoder.cls_token\""]).to_owned()
            }
            "string" => self.own("string", dice::text, 15),
            "array" if name == "tensors" => self.tensors(),
            "array" => self.own("array", |dice| dice::values(dice, 2), 40),
            "map" if ["options", "spec", "fields"].contains(&name) => {
                options::map(self.dice, self.reference, &function.full_name())
            }
            "map" => self.own("map", |dice| dice::literal(dice, 2), 70),
            "blob" => self.own("blob", dice::blob, 15),
            "function" => parenthesized(self.own("function", dice::function, 15)),
            "range" | "range=" => dice::range(self.dice),
            kind if kind.starts_with("Range") => dice::range(self.dice),
            "" | "number" | "numbers" | "shape" => self.by_name(name),
            kind => match self.variable(kind) {
                Some(name) => name,
                None => self.by_name(name),
            },
        }
    }

    /// One of the variables in `percent` of all cases, else a literal.
    fn own(&mut self, kind: &str, literal: impl Fn(&mut Dice) -> String, percent: usize) -> String {
        match self.dice.percent(percent).then(|| self.variable(kind)).flatten() {
            Some(name) => name,
            None => literal(self.dice),
        }
    }

    /// For parameters that take several types.
    fn by_name(&mut self, name: &str) -> String {
        match name {
            "shape" | "size" | "sizes" => dice::shape(self.dice),
            "dim" | "dims" => {
                self.dice.pick(&["0", "1", "-1", "[0, 1]", "[-1]", "[1, 0]", "[2, 0, 1]", "[]"]).to_owned()
            }
            "values" => {
                let depth = self.dice.below(4);
                dice::values(self.dice, depth)
            }
            "value" | "low" | "high" | "rtol" | "atol" | "lr" | "start" | "end" | "step" | "number" | "part"
            | "fraction" | "seconds" => dice::number(self.dice),
            "index" => match self.dice.below(4) {
                0 => dice::int(self.dice),
                1 => dice::range(self.dice),
                2 => self.dice.pick(&["[0, 1]", "[1..2, 0]", "[(), 0]", "[0..2, ()]", "[]", "[-1]"]).to_owned(),
                _ => self.dice.pick(&["t1", "t5", "t13", "t14", "t3", "t2 > 0"]).to_owned(),
            },
            "patterns" => self
                .dice
                .pick(&["\"**\"", "[\"encoder.**\"]", "[]", "\"auto\"", "[\"!linear\"]", "[\"*\"]", "[\"no.such\"]"])
                .to_owned(),
            "classes" => self.dice.pick(&["2", "[\"one\", \"two\"]", "3", "1", "0", "[\"x\", \"x\"]"]).to_owned(),
            "kernel" => self.dice.pick(&["1", "3", "[2, 3]", "0", "5"]).to_owned(),
            "a" | "b" => match self.dice.below(3) {
                0 => dice::number(self.dice),
                1 => self.anything(),
                _ => self.variable("Tensor").unwrap_or_default(),
            },
            _ => self.anything(),
        }
    }

    fn path(&mut self) -> String {
        let places = ["\"one.safetensors\"", "run.dir", "\"broken.safetensors\"", "\"photos\"", "\"data.png\""];
        if self.dice.percent(70) { self.dice.pick(&places).to_owned() } else { dice::text(self.dice) }
    }

    fn tensors(&mut self) -> String {
        let name = self.variable("Tensor").unwrap_or_default();
        let more = if self.dice.percent(60) { name.clone() } else { self.anything() };
        self.dice.pick(&[format!("[{name}, {more}]").as_str(), &format!("[{name}]"), "[]"]).to_owned()
    }
}

/// Literals that would bind otherwise behind a dot.
fn parenthesized(text: String) -> String {
    if text.starts_with(['|', '-', '#']) || text.contains("..") { format!("({text})") } else { text }
}
