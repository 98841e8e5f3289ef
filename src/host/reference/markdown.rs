//! Markdown: names that link to their place, anchors, tables.

use std::collections::HashMap;

/// Where names that stand between backticks lead: `models::vit`, `Tensor`.
#[derive(Default)]
pub struct Links {
    places: HashMap<String, String>,
}

impl Links {
    /// `place` is `page.md#anchor`.
    pub fn add(&mut self, name: impl Into<String>, place: impl Into<String>) {
        self.places.entry(name.into()).or_insert_with(|| place.into());
    }

    /// `text` with links, written for `page`: a name on the page itself leads to its anchor, the page's own subject nowhere.
    pub fn apply(&self, text: &str, page: &str) -> String {
        let mut in_code = false;
        let lines = text.lines().map(|line| {
            in_code ^= line.trim_start().starts_with("```");
            match in_code || line.contains("``") || line.starts_with("    ") {
                true => line.to_owned(),
                false => self.apply_to_line(line, page),
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn apply_to_line(&self, line: &str, page: &str) -> String {
        let parts: Vec<&str> = line.split('`').collect();
        let mut text = String::new();
        for (at, part) in parts.iter().enumerate() {
            let is_name = at % 2 == 1 && at + 1 < parts.len();
            match self.places.get(*part).filter(|_| is_name).map(|place| (place, place.strip_prefix(page))) {
                Some((_, Some(""))) => text.push_str(&format!("`{part}`")),
                Some((_, Some(anchor))) => text.push_str(&format!("[`{part}`]({anchor})")),
                Some((place, None)) => text.push_str(&format!("[`{part}`]({place})")),
                None if is_name => text.push_str(&format!("`{part}`")),
                None if at % 2 == 1 => text.push_str(&format!("`{part}")), // One that nothing closes.
                None => text.push_str(part),
            }
        }
        text
    }
}

/// The anchors that readers of Markdown give to headings of one page: equal ones are numbered.
#[derive(Default)]
pub struct Anchors {
    seen: HashMap<String, usize>,
}

impl Anchors {
    /// The anchor of the next heading, `#forward`.
    pub fn next(&mut self, heading: &str) -> String {
        let kept = heading.to_lowercase().replace(' ', "-");
        let plain: String = kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
        let count = self.seen.entry(plain.clone()).or_default();
        *count += 1;
        match *count {
            1 => format!("#{plain}"),
            n => format!("#{plain}-{}", n - 1),
        }
    }
}

/// Text for a cell of a table.
pub fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A fenced block.
pub fn fence(language: &str, code: &str) -> String {
    format!("```{language}\n{}\n```\n", code.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_place() {
        let mut links = Links::default();
        links.add("models::vit", "models.md#vit");
        links.add("Tensor", "type-Tensor.md");
        assert_eq!(links.apply("as `models::vit` and `x`.", "models.md"), "as [`models::vit`](#vit) and `x`.");
        assert_eq!(
            links.apply("`Tensor` or `models::vit`", "type-Tensor.md"),
            "`Tensor` or [`models::vit`](models.md#vit)"
        );
        assert_eq!(links.apply("an open `Tensor", "nn.md"), "an open `Tensor");
        assert_eq!(links.apply("```rhai\n`Tensor`\n```", "nn.md"), "```rhai\n`Tensor`\n```");
    }

    #[test]
    fn equal_headings_have_different_anchors() {
        let mut anchors = Anchors::default();
        assert_eq!(anchors.next("len"), "#len");
        assert_eq!(anchors.next("**"), "#");
        assert_eq!(anchors.next("len"), "#len-1");
    }
}
