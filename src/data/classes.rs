//! The classes of a dataset: their names, the colors they are shown in, and how annotations write them.

use super::error::DataError;

/// The label of pixels that belong to no class: left out of losses and scores. Whatever a dataset writes for it on disk, in
/// memory it is this.
pub const IGNORE: u8 = 255;

/// More labels of pixels do not fit beside [`IGNORE`] in a byte.
pub const MAX_MASK_CLASSES: usize = 255;
/// More classes of images are taken for a mistake.
pub const MAX_CLASSES: usize = 65_536;

/// Names and colors of the labels `0..names.len()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTable {
    pub names: Vec<String>,
    /// One per name.
    pub colors: Vec<[u8; 3]>,
}

impl ClassTable {
    /// With [`palette_color`]s; black is for a first class called background alone.
    ///
    /// Errors: no name, more than [`MAX_CLASSES`], an empty name, or a name that appears twice.
    pub fn new(names: Vec<String>) -> Result<Self, DataError> {
        let colors = colors_for(&names);
        Self::with_colors(names, colors)
    }

    /// Errors: as [`new`](Self::new), and a number of colors other than that of the names.
    pub fn with_colors(names: Vec<String>, colors: Vec<[u8; 3]>) -> Result<Self, DataError> {
        if names.is_empty() || names.len() > MAX_CLASSES {
            return Err(DataError::range("classes", format!("1 to {MAX_CLASSES} of them"), names.len()));
        }
        if colors.len() != names.len() {
            return Err(DataError::range("colors", format!("one for each of {} classes", names.len()), colors.len()));
        }
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(DataError::range("classes", "names that differ", format!("\"{}\" twice", twice[0])));
        }
        if sorted[0].is_empty() {
            return Err(DataError::range("classes", "names", "an empty one"));
        }
        Ok(Self { names, colors })
    }

    /// `class 0`, `class 1` and so on, for sets that state a number only.
    pub fn numbered(count: usize) -> Result<Self, DataError> {
        Self::new((0..count.min(MAX_CLASSES + 1)).map(|i| format!("class {i}")).collect())
    }

    /// Of names that are known to be good.
    pub(super) fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let colors = colors_for(&names);
        Self { names, colors }
    }

    /// The names of a table that comes with the program: lines `index,name`, in order of the indices.
    pub(super) fn built_in(csv: &str) -> Self {
        let lines = csv.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let names: Vec<String> = lines.filter_map(|line| Some(line.split_once(',')?.1.to_owned())).collect();
        let colors = colors_for(&names);
        Self { names, colors }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never: a table without classes is an error where it would be made.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Colors for classes that come without.
fn colors_for(names: &[String]) -> Vec<[u8; 3]> {
    let first = usize::from(names.first().is_none_or(|name| name != BACKGROUND));
    (first..first + names.len()).map(palette_color).collect()
}

/// The name of a class that stands for nothing in particular.
pub const BACKGROUND: &str = "background";

/// The color of a label: the colormap of the PASCAL VOC development kit (Everingham et al. 2010), in which the bits of the
/// label, three at a time, become the highest bits of red, green and blue. Label 0 is black.
pub fn palette_color(label: usize) -> [u8; 3] {
    let channel = |c: usize| (0..8).map(|bit| ((label >> (3 * bit + c) & 1) as u8) << (7 - bit)).sum();
    [channel(0), channel(1), channel(2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The palette that PASCAL VOC's own masks carry.
    fn colors_are_those_of_voc() {
        let known = [(0, [0, 0, 0]), (1, [128, 0, 0]), (2, [0, 128, 0]), (7, [128, 128, 128]), (8, [64, 0, 0])];
        for (label, color) in
            known.into_iter().chain([(15, [192, 128, 128]), (20, [0, 64, 128]), (255, [224, 224, 192])])
        {
            assert_eq!(palette_color(label), color, "label {label}");
        }
    }

    #[test]
    fn tables_are_checked() {
        let table = |names: &[&str]| ClassTable::new(names.iter().map(|&name| name.into()).collect());
        assert_eq!(table(&["background", "b"]).unwrap().colors, [[0, 0, 0], [128, 0, 0]]);
        assert_eq!(table(&["a", "b"]).unwrap().colors, [[128, 0, 0], [0, 128, 0]]);
        for wrong in [table(&[]), table(&["a", "a"]), table(&["a", ""]), ClassTable::numbered(1 << 40)] {
            assert!(matches!(wrong, Err(DataError::Range { .. })));
        }
        assert!(ClassTable::with_colors(vec!["a".into()], vec![]).is_err());
        assert_eq!(ClassTable::numbered(2).unwrap().names, ["class 0", "class 1"]);
    }
}
