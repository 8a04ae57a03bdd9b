//! Which atoms: `all`, elements, and numbers as a structure file counts them.

use super::System;
use crate::elements;
use std::ops::RangeInclusive;

/// Atoms by element and by number, as in `all`, `O`, `C,O` or `1-9,12`.
///
/// ```
/// use verlet::system::Selection;
/// let oxygen_and_some: Selection = "O, 1-3".parse().unwrap();
/// assert_eq!(oxygen_and_some.to_string(), "O, 1-3");
/// assert!("0-3".parse::<Selection>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Atoms that any of these names are selected.
    items: Vec<Item>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    All,
    Element(u8),
    /// Counted from 1.
    Numbers(RangeInclusive<usize>),
}

/// What a selection looks like, for messages.
pub const SELECTION_FORM: &str = "\"all\", elements such as \"O\" or \"C,O\", or numbers from 1 such as \"1-9,12\"";

impl Default for Selection {
    fn default() -> Self {
        Selection { items: vec![Item::All], text: "all".into() }
    }
}

impl std::str::FromStr for Selection {
    type Err = String;

    /// The error is the end of a sentence that begins with the text.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&n| n > 0);
        let item = |part: &str| -> Option<Item> {
            let part = part.trim();
            if part == "all" {
                return Some(Item::All);
            }
            if let Some(z) = elements::atomic_number(part) {
                return Some(Item::Element(z));
            }
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Item::Numbers(first..=last))
        };
        let items = text.split(',').map(|part| item(part).ok_or(part)).collect::<Result<Vec<_>, _>>();
        match items {
            Ok(items) => Ok(Selection { items, text: text.to_owned() }),
            Err(part) => Err(format!("selects no atoms with '{}'; give {SELECTION_FORM}", part.trim())),
        }
    }
}

impl std::fmt::Display for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Selection {
    /// Indices of the selected atoms, counted from 0, rising.
    ///
    /// # Errors
    /// The end of a sentence that begins with the selection: a number beyond the last atom, an element that is not there.
    pub fn atoms(&self, system: &System) -> Result<Vec<usize>, String> {
        for item in &self.items {
            match item {
                Item::Numbers(range) if *range.end() > system.len() => {
                    return Err(format!("names atom {}, but there are {} atoms", range.end(), system.len()));
                }
                Item::Element(z) if !system.atomic_numbers.contains(z) => {
                    return Err(format!("names {}, but the system is {}", elements::symbol(*z), system.formula()));
                }
                _ => {}
            }
        }
        let selected = |atom: &usize| {
            self.items.iter().any(|item| match item {
                Item::All => true,
                Item::Element(z) => system.atomic_numbers[*atom] == *z,
                Item::Numbers(range) => range.contains(&(atom + 1)),
            })
        };
        Ok((0..system.len()).filter(selected).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Cell;
    use nalgebra::Vector3;

    #[test]
    fn elements_and_numbers() {
        let system = System::new(vec![6, 1, 8, 1, 17], vec![Vector3::zeros(); 5], Cell::open()).unwrap();
        let atoms = |text: &str| text.parse::<Selection>().and_then(|selection| selection.atoms(&system));
        assert_eq!(atoms("all").unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(atoms("H").unwrap(), [1, 3]);
        assert_eq!(atoms("o,cl").unwrap(), [2, 4]);
        assert_eq!(atoms("4 - 5, 1,4").unwrap(), [0, 3, 4]);
        assert_eq!(atoms("C,2-2").unwrap(), [0, 1]);
        assert_eq!(atoms("6").unwrap_err(), "names atom 6, but there are 5 atoms");
        assert_eq!(atoms("N").unwrap_err(), "names N, but the system is CH2ClO");
        for bad in ["", "0", "3-1", "1-", "-2", "Qq", "1,,2", "1-2-3", "all atoms"] {
            assert!(atoms(bad).unwrap_err().starts_with("selects no atoms with '"), "{bad}");
        }
    }
}
