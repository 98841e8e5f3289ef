//! Random choices and random values as script text, all a function of one seed.

/// SplitMix64: small, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to n − 1; 0 for an n of 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True in `percent` of all cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

const WHOLE: [&str; 18] = [
    "9223372036854775807",
    "(-9223372036854775807 - 1)",
    "4611686018427387904",
    "(-4611686018427387904)",
    "4294967296",
    "2147483648",
    "2147483647",
    "(-2147483648)",
    "1000000007",
    "100000000000",
    "1000000",
    "65536",
    "4096",
    "255",
    "256",
    "(-1000)",
    "64",
    "17",
];

const FLOATS: [&str; 14] = [
    "1e308",
    "(-1e308)",
    "(0.0 / 0.0)",
    "(1.0 / 0.0)",
    "(-1.0 / 0.0)",
    "5e-324",
    "1e-300",
    "1e-7",
    "9007199254740993.0",
    "1e19",
    "(-1e19)",
    "1e10",
    "(-0.0)",
    "100.5",
];

const USUAL_FLOATS: [&str; 10] = ["0.0", "1.0", "0.5", "0.25", "0.1", "2.0", "(-1.0)", "1e-3", "3.7", "0.9"];

pub const TEXTS: [&str; 34] = [
    "\"\"",
    "\" \"",
    "\"a\"",
    "\"x\"",
    "\"mean\"",
    "\"class\"",
    "\"häßlich ∂ 漢字 🦀\"",
    "\"e\\u0301\"",
    "\"\\n\\t\\r\"",
    "\"\\x00\"",
    "\"../x\"",
    "\"../../../../etc/passwd\"",
    "\"/etc/passwd\"",
    "\"/dev/zero\"",
    "\"/\"",
    "\".\"",
    "\"..\"",
    "\"a/b/c\"",
    "\"C:\\\\x\"",
    "\"photos\"",
    "\"photos/000.png\"",
    "\"labeled\"",
    "\"pairs/images\"",
    "\"pairs/masks\"",
    "\"one.safetensors\"",
    "\"broken.safetensors\"",
    "\"nothing\"",
    "\"nan\"",
    "\"1e400\"",
    "\"-5\"",
    "\"{\"",
    "\"[1, 2, {\\\"a\\\": null}]\"",
    "\"reshape\"",
    "long",
];

const CHARS: [&str; 7] = ["'a'", "'0'", "'\\n'", "'∂'", "'🦀'", "'\\x00'", "' '"];

const FUNCTIONS: [&str; 16] = [
    "|x| x",
    "|x| x + x",
    "|x, y| x",
    "|x, y| y < x",
    "|x, y, z| z",
    "|| 1",
    "|| t2 * 2",
    "|x| ()",
    "|x| true",
    "|x| x > 1",
    "|x| throw x",
    "|x| { let y = x; y }",
    "|r| r.step",
    "Fn(\"reshape\")",
    "Fn(\"nowhere\")",
    "Fn(\"print\")",
];

const RANGES: [&str; 10] =
    ["0..2", "0..=1", "1..3", "2..1", "-1..1", "-2..=-1", "0..0", "0..=9223372036854775807", "5..7", "-9..9"];

/// A whole number as text; most are small.
pub fn int(dice: &mut Dice) -> String {
    match dice.below(10) {
        0..=5 => dice.below(5).to_string(),
        6 => format!("(-{})", 1 + dice.below(3)),
        7 => dice.below(40).to_string(),
        _ => dice.pick(&WHOLE).to_owned(),
    }
}

pub fn float(dice: &mut Dice) -> String {
    if dice.percent(75) { dice.pick(&USUAL_FLOATS).to_owned() } else { dice.pick(&FLOATS).to_owned() }
}

pub fn number(dice: &mut Dice) -> String {
    if dice.percent(50) { int(dice) } else { float(dice) }
}

pub fn text(dice: &mut Dice) -> String {
    dice.pick(&TEXTS).to_owned()
}

pub fn character(dice: &mut Dice) -> String {
    dice.pick(&CHARS).to_owned()
}

pub fn bool(dice: &mut Dice) -> String {
    dice.percent(50).to_string()
}

pub fn function(dice: &mut Dice) -> String {
    let function = dice.pick(&FUNCTIONS);
    if dice.percent(10) { format!("({function}).curry({})", int(dice)) } else { function.to_owned() }
}

pub fn range(dice: &mut Dice) -> String {
    format!("({})", dice.pick(&RANGES))
}

pub fn blob(dice: &mut Dice) -> String {
    format!("blob({}, {})", dice.below(20), dice.below(256))
}

/// Sizes of a small tensor.
pub fn shape(dice: &mut Dice) -> String {
    match dice.below(12) {
        0 => int(dice),
        1 => "[]".to_owned(),
        2 => "[-1]".to_owned(),
        3 => format!("[{}, {}]", int(dice), int(dice)),
        4 => "[2, 3]".to_owned(),
        5 => "[3, 2]".to_owned(),
        6 => "[4294967296, 4294967296, 4294967296]".to_owned(),
        rank => {
            let sizes: Vec<String> = (0..rank - 6).map(|_| dice.below(4).to_string()).collect();
            format!("[{}]", sizes.join(", "))
        }
    }
}

/// Nested arrays of numbers or bools, mostly with rows of one length.
pub fn values(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 {
        return match dice.below(12) {
            0 => bool(dice),
            1 => text(dice),
            2..=6 => int(dice),
            _ => float(dice),
        };
    }
    let length = dice.below(4);
    let mut items: Vec<String> = (0..length).map(|_| values(dice, depth - 1)).collect();
    if dice.percent(60) && length > 0 {
        items = vec![items[0].clone(); length];
    }
    format!("[{}]", items.join(", "))
}

/// A literal of any kind.
pub fn literal(dice: &mut Dice, depth: usize) -> String {
    match dice.below(if depth == 0 { 11 } else { 14 }) {
        0 | 1 => int(dice),
        2 | 3 => float(dice),
        4 | 5 => text(dice),
        6 => character(dice),
        7 => bool(dice),
        8 => "()".to_owned(),
        9 => function(dice),
        10 => range(dice),
        11 => blob(dice),
        12 => {
            let items: Vec<String> = (0..dice.below(4)).map(|_| literal(dice, depth - 1)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => {
            let keys = ["a", "b", "model", "lr", "step", "name"];
            let mut entries = Vec::new();
            for key in keys {
                if dice.percent(30) {
                    entries.push(format!("{key}: {}", literal(dice, depth - 1)));
                }
            }
            format!("#{{ {} }}", entries.join(", "))
        }
    }
}
