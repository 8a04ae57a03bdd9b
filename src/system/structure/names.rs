//! Which element an atom of chemfiles is.

use crate::elements;
use chemfiles::{Frame, Property};

/// What a frame says of an atom besides its place.
pub(super) struct Atom {
    pub(super) atomic_number: u8,
    /// u; zero when the file has none and chemfiles knows none.
    pub(super) mass: f64,
}

/// Residues whose atoms are H, C, N, O, P and S only, so that `CA` is a carbon and `HG` a hydrogen.
#[rustfmt::skip]
const STANDARD_RESIDUES: [&str; 64] = [
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS", "MET", "PHE", "PRO", "SER",
    "THR", "TRP", "TYR", "VAL", "HID", "HIE", "HIP", "HSD", "HSE", "HSP", "CYX", "CYM", "CYS2", "ASH", "ASPH", "GLH",
    "GLUH", "LYN", "LYSH", "ACE", "NME", "NMA", "NH2", "A", "C", "G", "U", "T", "DA", "DC", "DG", "DT", "RA", "RC",
    "RG", "RU", "HOH", "WAT", "SOL", "H2O", "TIP", "TIP3", "TIP4", "TP3", "TP4", "SPC", "SPCE", "DOD",
];

/// Elements and masses of all atoms.
///
/// # Errors
/// The end of a sentence that begins with the file: which atom has no element or is disordered.
pub(super) fn atoms(frame: &Frame) -> Result<Vec<Atom>, String> {
    let topology = frame.topology();
    // chemfiles gives the name as type where the file has no types; one difference shows that this file has them.
    let has_types = frame.iter_atoms().any(|atom| {
        let kind = atom.atomic_type();
        !kind.is_empty() && kind != atom.name()
    });
    let mut location = None;
    let mut found = Vec::with_capacity(frame.size());
    for (index, atom) in frame.iter_atoms().enumerate() {
        let residue = topology.residue_for_atom(index).map(|residue| (residue.name(), residue.size()));
        let label = || match &residue {
            Some((residue, _)) if !residue.is_empty() => {
                format!("atom {} ({} of residue {residue})", index + 1, atom.name())
            }
            _ => format!("atom {} ({})", index + 1, atom.name()),
        };
        if let Some(Property::Double(occupancy)) = atom.get("occupancy")
            && occupancy < 1.0
        {
            return Err(format!("{} has the occupancy {occupancy}; keep one of the alternatives, complete", label()));
        }
        if let Some(Property::String(alternative)) = atom.get("altloc")
            && *location.get_or_insert_with(|| alternative.clone()) != alternative
        {
            return Err(format!(
                "{} is at the alternate location {alternative}; keep one of the alternatives",
                label()
            ));
        }
        let given = Some(atom.atomic_number()).filter(|_| has_types && !atom.atomic_type().is_empty());
        let given = given.and_then(|z| u8::try_from(z).ok()).filter(|z| (1..=118).contains(z));
        let residue = residue.as_ref().map(|(name, size)| (name.as_str(), *size));
        let Some(atomic_number) = given.or_else(|| from_name(&atom.name(), residue)) else {
            return Err(format!(
                "{} has no element, and its name does not tell it; use a format with elements, such as extended XYZ or \
                 PDB with columns 77-78",
                label()
            ));
        };
        found.push(Atom { atomic_number, mass: atom.mass() });
    }
    Ok(found)
}

/// The element that a name of an atom stands for, given the name and size of its residue; `None` when none or more than
/// one is possible.
fn from_name(name: &str, residue: Option<(&str, usize)>) -> Option<u8> {
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let end = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len());
    let letters = &name[..end];
    let whole = elements::atomic_number(letters);
    let has_case = letters.len() == 2 && letters.ends_with(|c: char| c.is_ascii_lowercase());
    if letters.len() <= 1 || (has_case && whole.is_some()) {
        return whole;
    }
    // Elements of which names such as CA, HB2, OXT, NZ, SG, P1 are made.
    let first = elements::atomic_number(&letters[..1]).filter(|z| [1, 6, 7, 8, 9, 15, 16].contains(z));
    match residue {
        Some((residue, _)) if STANDARD_RESIDUES.contains(&residue) && !["NA", "CL"].contains(&letters) => first,
        Some((_, 1)) => whole,
        _ => match (elements::atomic_number(&letters[..2]), first) {
            (Some(_), None) => whole,
            (None, Some(first)) => Some(first),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, residue: Option<(&str, usize)>) -> Option<&'static str> {
        from_name(name, residue).map(elements::symbol)
    }

    #[test]
    fn the_residue_decides_what_a_name_means() {
        for (name, element) in
            [("CA", "C"), ("HG", "H"), ("1HB", "H"), ("OXT", "O"), ("NE2", "N"), ("SD", "S"), ("N", "N")]
        {
            assert_eq!(symbol(name, Some(("MET", 17))), Some(element), "{name}");
        }
        assert_eq!(symbol("OW", Some(("SOL", 3))), Some("O"));
        assert_eq!(symbol("HW1", Some(("SOL", 3))), Some("H"));
        for (ion, element) in [("CA", "Ca"), ("NA", "Na"), ("CL", "Cl"), ("ZN", "Zn"), ("Mg2+", "Mg")] {
            assert_eq!(symbol(ion, Some((ion, 1))), Some(element), "{ion}");
        }
    }

    #[test]
    fn names_without_a_known_residue_are_read_only_when_they_are_clear() {
        for (name, element) in
            [("C12", "C"), ("Cl1", "Cl"), ("CX", "C"), ("BR", "Br"), ("H", "H"), ("Fe", "Fe"), ("HAA", "H")]
        {
            assert_eq!(symbol(name, Some(("LIG", 20))), Some(element), "{name}");
            assert_eq!(symbol(name, None), Some(element), "{name}");
        }
        // Carbon or chlorine, carbon or calcium, hydrogen or mercury; a chloride of CHARMM; a virtual site; no name.
        for name in ["CL1", "CA", "HG", "CLAA", "MW", "", "12", "å"] {
            assert_eq!(symbol(name, Some(("LIG", 20))), None, "{name}");
        }
        assert_eq!(symbol("CLA", Some(("CLA", 1))), None);
        assert_eq!(symbol("MW", Some(("SOL", 4))), None);
    }
}
