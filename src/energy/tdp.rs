//! Thermal design power of processors by the `model name` of /proc/cpuinfo, for machines whose energy cannot be read.
//!
//! The table is `datasets/cpu_tdp.csv`, made by `tools/carbon_tables.py` from what codecarbon 3.3.2 collected out of
//! AMD's and Intel's specifications. A row matches if all its words are in the model's name; the row with the most words
//! wins. Departure from codecarbon, which compares strings fuzzily and takes the only best row: where rows tie with
//! different figures, or the name holds a word that tells models apart and no row has, there is no answer.

use std::collections::HashSet;
use std::sync::OnceLock;

const TABLE: &str = include_str!("../../datasets/cpu_tdp.csv");

/// Words that tell generations or series with the same numbers apart: a row without such a word of the model's name is
/// of another processor.
const TELLING: &[&str] = &["bronze", "silver", "gold", "platinum", "max", "ultra", "phi", "threadripper"];

struct Row {
    name: &'static str,
    watts: f64,
    words: HashSet<String>,
}

/// The table's name of the processor and its thermal design power in watts, for a `model name` of /proc/cpuinfo. `None`
/// for one that the table does not have, or not with one figure.
pub fn watts(model: &str) -> Option<(&'static str, f64)> {
    let model = words(model);
    let telling: Vec<&String> = model.iter().filter(|word| tells(word)).collect();
    let matches: Vec<&Row> = table()
        .iter()
        .filter(|row| row.words.is_subset(&model) && telling.iter().all(|word| row.words.contains(*word)))
        .collect();
    let most = matches.iter().map(|row| row.words.len()).max()?;
    let mut best = matches.into_iter().filter(|row| row.words.len() == most);
    let first = best.next()?;
    best.all(|row| row.watts == first.watts).then_some((first.name, first.watts))
}

fn tells(word: &str) -> bool {
    let version = word.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()));
    version || TELLING.contains(&word)
}

fn table() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        let row = |line: &'static str| {
            let (name, watts) = line.split_once(',')?;
            Some(Row { name, watts: watts.parse().ok()?, words: words(name) })
        };
        lines.filter_map(row).collect() // The tests hold that every line is a row.
    })
}

/// The words that name a model: no trademarks, counts of cores, clock or graphics; parts around a hyphen are words of
/// their own, since `i7-920` is also written `i7 CPU 920`.
fn words(name: &str) -> HashSet<String> {
    let mut name = name.to_lowercase();
    for mark in ["(r)", "(tm)", "®", "™"] {
        name = name.replace(mark, " "); // `Core(TM)2` is two words.
    }
    for rest in ["@", " with ", " w/ ", " radeon "] {
        if let Some(at) = name.find(rest) {
            name.truncate(at);
        }
    }
    name.split_whitespace()
        .filter(|word| !word.ends_with("-core") && !word.ends_with("-cores"))
        .flat_map(|word| word.split(['-', ',']))
        .filter(|word| !word.is_empty() && !["cpu", "processor", "apu"].contains(word))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_row_that_names_a_maker_and_a_model() {
        let lines: Vec<_> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines.len(), table().len());
        assert!(lines.len() > 4000 && lines.windows(2).all(|two| !two[0].eq_ignore_ascii_case(two[1])), "no doubles");
        for row in table() {
            assert!(row.words.contains("amd") || row.words.contains("intel"), "{}", row.name);
            assert!(row.words.iter().any(|word| word.bytes().any(|c| c.is_ascii_digit())), "{}", row.name);
            assert!(!row.name.contains(['"', ',', '(']) && row.name == row.name.trim(), "{}", row.name);
            assert!((0.5..=600.0).contains(&row.watts), "{}", row.name);
        }
    }

    /// `model name` as processors say it, and the row that is meant.
    const REAL: &[(&str, Option<(&str, f64)>)] = &[
        // Servers.
        ("AMD EPYC 7763 64-Core Processor", Some(("AMD EPYC 7763", 280.0))),
        ("AMD EPYC 9654 96-Core Processor", Some(("AMD EPYC 9654", 360.0))),
        ("AMD EPYC 7B12", Some(("AMD EPYC 7B12", 240.0))),
        ("AMD EPYC 7742 64-Core Processor", Some(("AMD EPYC 7742", 225.0))),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", Some(("Intel Xeon E5-2680 v4", 120.0))),
        ("Intel(R) Xeon(R) CPU E5-2680 0 @ 2.70GHz", Some(("Intel Xeon E5-2680", 130.0))),
        ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", Some(("Intel Xeon Gold 6148", 150.0))),
        ("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", Some(("Intel Xeon Platinum 8259CL", 210.0))),
        ("Intel(R) Xeon(R) Platinum 8480+", Some(("Intel Xeon Platinum 8480+", 350.0))),
        ("Intel(R) Xeon(R) Silver 4210R CPU @ 2.40GHz", Some(("Intel Xeon Silver 4210R", 100.0))),
        ("Intel(R) Xeon(R) CPU           X5570  @ 2.93GHz", Some(("Intel Xeon X5570", 95.0))),
        ("AMD Opteron(tm) Processor 6376", Some(("AMD Opteron 6376", 115.0))),
        // Desktops and workstations.
        ("AMD Ryzen 9 7950X 16-Core Processor", Some(("AMD Ryzen 9 7950X", 170.0))),
        ("AMD Ryzen 7 5800X3D 8-Core Processor", Some(("AMD Ryzen 7 5800X3D", 105.0))),
        ("AMD Ryzen Threadripper PRO 3975WX 32-Cores", Some(("AMD Ryzen Threadripper PRO 3975WX", 280.0))),
        ("AMD Ryzen 5 5600G with Radeon Graphics", Some(("AMD Ryzen 5 5600G", 65.0))),
        ("12th Gen Intel(R) Core(TM) i7-12700K", Some(("Intel Core i7-12700K", 190.0))),
        ("Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz", Some(("Intel Core i9-9900K", 95.0))),
        ("Intel(R) Core(TM) i7 CPU         920  @ 2.67GHz", Some(("Intel Core i7-920", 130.0))),
        ("Intel(R) Core(TM)2 Quad CPU    Q6600  @ 2.40GHz", None), // Sold with 95 W and with 105 W.
        ("AMD Phenom(tm) II X6 1075T Processor", Some(("AMD Phenom II X6 1075T", 125.0))),
        // Laptops.
        ("AMD Ryzen 7 PRO 5850U with Radeon Graphics", Some(("AMD Ryzen 7 PRO 5850U", 15.0))),
        ("AMD Ryzen AI 9 HX 370 w/ Radeon 890M", Some(("AMD Ryzen AI 9 HX 370", 28.0))),
        ("11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz", Some(("Intel Core i7-1165G7", 28.0))),
        ("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", Some(("Intel Core i7-8650U", 15.0))),
        ("Intel(R) Core(TM) Ultra 7 155H", Some(("Intel Core Ultra 7 155H", 28.0))),
        ("Intel(R) N100", Some(("Intel N100", 6.0))),
    ];

    #[test]
    fn real_names_are_the_row_that_is_meant() {
        for (model, row) in REAL {
            assert_eq!(watts(model), *row, "{model}");
        }
    }

    #[test]
    fn names_without_a_model_or_of_other_makers_match_nothing() {
        for model in [
            "",
            "AMD EPYC",
            "AMD EPYC Processor",
            "AMD EPYC Processor (with IBPB)",
            "AMD EPYC-Rome Processor",
            "AMD Ryzen 7",
            "Intel(R) Core(TM) i7",
            "Intel(R) Core(TM)2 Duo CPU",
            "Intel(R) Xeon(R) CPU @ 2.20GHz",
            "Intel(R) Xeon(R) Processor @ 2.00GHz",
            "Intel Xeon Processor (Skylake, IBRS)",
            "Intel(R) Xeon(R) CPU E5-2680 v9 @ 2.40GHz",
            "Intel(R) Xeon(R) Platinum 5570",
            "QEMU Virtual CPU version 2.5+",
            "Common KVM processor",
            "Neoverse-N1",
            "ARMv8 Processor rev 0 (v8l)",
            "Apple M1 Pro",
            "Hygon C86 7285 32-core Processor",
            "VirtualApple @ 2.50GHz processor",
            "POWER9, altivec supported",
        ] {
            assert_eq!(watts(model), None, "{model}");
        }
    }

    #[test]
    fn a_rows_own_name_gives_its_figure_or_none() {
        let mut ambiguous = 0;
        for row in table() {
            match watts(row.name) {
                Some((_, found)) => assert_eq!(found, row.watts, "{}", row.name),
                None => ambiguous += 1,
            }
        }
        assert!(ambiguous < 60, "{ambiguous} rows of {} are ambiguous", table().len());
        assert_eq!(watts("AMD Phenom(tm) II X4 955 Processor"), None, "sold with 95 W and with 125 W");
    }
}
