//! The periodic table: symbols here, standard atomic weights from chemfiles.

use std::sync::LazyLock;

/// Symbols by atomic number; index 0 is no element.
#[rustfmt::skip]
const SYMBOLS: [&str; 119] = [
    "X",
    "H", "He",
    "Li", "Be", "B", "C", "N", "O", "F", "Ne",
    "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar",
    "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr",
    "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe",
    "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu",
    "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn",
    "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr",
    "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og",
];

/// The symbol of an atomic number; `"X"` when there is no such element.
pub fn symbol(atomic_number: u8) -> &'static str {
    SYMBOLS.get(atomic_number as usize).copied().unwrap_or("X")
}

/// The atomic number of a symbol (`"Cl"`, `"cl"`, `"CL"`), or `None`.
pub fn atomic_number(symbol: &str) -> Option<u8> {
    SYMBOLS.iter().skip(1).position(|known| known.eq_ignore_ascii_case(symbol)).map(|index| index as u8 + 1)
}

/// Standard atomic weight in u, from chemfiles' periodic table; 0 when it knows none.
pub fn mass(atomic_number: u8) -> f64 {
    // Once: an atom of chemfiles costs half a microsecond, and a trajectory asks for every atom of every frame.
    static MASSES: LazyLock<[f64; 119]> =
        LazyLock::new(|| std::array::from_fn(|z| chemfiles::Atom::new(symbol(z as u8)).mass()));
    MASSES.get(atomic_number as usize).copied().unwrap_or(0.0)
}

/// Van der Waals radius in Å, from chemfiles' periodic table; 1.5 where it has none.
pub fn radius(atomic_number: u8) -> f64 {
    let radius = chemfiles::Atom::new(symbol(atomic_number)).vdw_radius();
    if radius > 0.0 { radius } else { 1.5 }
}

/// Symbols of several atomic numbers for messages: `"H, C, O"`.
pub fn list(atomic_numbers: &[u8]) -> String {
    atomic_numbers.iter().map(|&z| symbol(z)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_and_numbers_are_inverse() {
        for z in 1..=118 {
            assert_eq!(atomic_number(symbol(z)), Some(z));
        }
        assert_eq!(atomic_number("cl"), Some(17));
        assert_eq!(atomic_number("X"), None);
        assert_eq!(symbol(200), "X");
    }

    /// CIAAW 2021 abridged standard atomic weights.
    #[test]
    fn masses_are_the_standard_atomic_weights() {
        for (z, weight) in [(1, 1.008), (6, 12.011), (7, 14.007), (8, 15.999), (16, 32.06), (17, 35.45), (92, 238.03)] {
            assert!((mass(z) - weight).abs() < 6e-3, "{} {}", symbol(z), mass(z));
        }
        assert!((1..=94).all(|z| mass(z) > 0.0));
    }
}
