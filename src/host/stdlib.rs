//! The Rhai modules shipped inside the binary: `import "std/NAME"`.

/// Name and text of each. A new file in `stdlib/` is one line here.
pub const MODULES: &[(&str, &str)] = &[
    ("ablate", include_str!("../../stdlib/ablate.rhai")),
    ("check", include_str!("../../stdlib/check.rhai")),
    ("dbp", include_str!("../../stdlib/dbp.rhai")),
    ("classify", include_str!("../../stdlib/classify.rhai")),
    ("mae", include_str!("../../stdlib/mae.rhai")),
    ("paper", include_str!("../../stdlib/paper.rhai")),
    ("probe", include_str!("../../stdlib/probe.rhai")),
    ("recipe", include_str!("../../stdlib/recipe.rhai")),
    ("segment", include_str!("../../stdlib/segment.rhai")),
];

/// The text of `std/{name}`.
pub fn text(name: &str) -> Option<&'static str> {
    MODULES.iter().find(|(module, _)| *module == name).map(|(_, text)| *text)
}
