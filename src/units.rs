//! Units and constants.
//!
//! Inside the program: Å, fs, u (dalton), eV, K. Everything else is converted at the borders.
//! Constants are CODATA 2018 (Tiesinga, Mohr, Newell & Taylor, Rev. Mod. Phys. 93, 025010, 2021).

/// Elementary charge, C (exact): one eV in J.
const ELEMENTARY_CHARGE: f64 = 1.602_176_634e-19;
/// Avogadro's number, 1/mol (exact).
const AVOGADRO: f64 = 6.022_140_76e23;
/// Unified atomic mass unit, kg.
const ATOMIC_MASS: f64 = 1.660_539_066_60e-27;

/// Boltzmann's constant, eV/K (exact in the SI since 2019).
pub const BOLTZMANN: f64 = 1.380_649e-23 / ELEMENTARY_CHARGE;
/// u Å²/fs² in eV: kinetic energies are ½ m v² times this.
pub const MASS_VELOCITY2: f64 = ATOMIC_MASS * 1e10 / ELEMENTARY_CHARGE;
/// eV/(Å u) in Å/fs²: accelerations are force / mass times this.
pub const FORCE_PER_MASS: f64 = 1.0 / MASS_VELOCITY2;
/// kcal/mol in eV (thermochemical calorie, 4.184 J).
pub const KCAL_PER_MOL: f64 = 4184.0 / AVOGADRO / ELEMENTARY_CHARGE;
/// kJ/mol in eV.
pub const KJ_PER_MOL: f64 = 1000.0 / AVOGADRO / ELEMENTARY_CHARGE;
/// One ps in fs.
pub const FS_PER_PS: f64 = 1e3;
/// CHARMM's unit of time, as readers of DCD files have it, in fs.
pub const AKMA: f64 = 48.888_21;
/// Hartree energy in eV.
pub const HARTREE: f64 = 27.211_386_245_988;
/// Bohr radius in Å.
pub const BOHR: f64 = 0.529_177_210_903;
/// e²/4πε₀ in eV Å: what two elementary charges at a distance of one Å repel each other with.
pub const COULOMB: f64 = HARTREE * BOHR;

/// What a quantity measures, with the units that the input accepts for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Stored in fs.
    Time,
    /// Stored in Å.
    Length,
    /// Stored in K.
    Temperature,
    /// Stored in u.
    Mass,
    /// Stored in eV.
    Energy,
    /// Stored in 1/ps.
    Rate,
    /// Energy drift, stored in kT per nanosecond and degree of freedom.
    Drift,
}

impl Dimension {
    /// Accepted unit names with their value in the stored unit; the first is the stored unit itself.
    pub fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Dimension::Time => &[("fs", 1.0), ("as", 1e-3), ("ps", 1e3), ("ns", 1e6), ("us", 1e9), ("µs", 1e9)],
            Dimension::Length => {
                &[("Å", 1.0), ("A", 1.0), ("angstrom", 1.0), ("nm", 10.0), ("pm", 0.01), ("bohr", BOHR)]
            }
            Dimension::Temperature => &[("K", 1.0)],
            Dimension::Mass => &[("u", 1.0), ("Da", 1.0), ("g/mol", 1.0)],
            Dimension::Energy => {
                &[("eV", 1.0), ("meV", 1e-3), ("kcal/mol", KCAL_PER_MOL), ("kJ/mol", KJ_PER_MOL), ("hartree", HARTREE)]
            }
            Dimension::Rate => &[("1/ps", 1.0), ("1/fs", 1e3), ("1/ns", 1e-3)],
            Dimension::Drift => &[("kT/ns/dof", 1.0)],
        }
    }

    /// The unit in which a bare number is understood.
    pub fn default_unit(self) -> &'static str {
        self.units()[0].0
    }

    /// The value of one `unit` in the stored unit, if the input accepts it. The Greek letter in `μs` looks like the sign for
    /// micro, and `1/ps` may be `/ps` or `ps^-1`.
    pub fn factor(self, unit: &str) -> Option<f64> {
        let unit = unit.replace('\u{3bc}', "\u{b5}");
        let inverse = unit.strip_prefix('/').or_else(|| unit.strip_suffix("^-1")).map(|unit| format!("1/{unit}"));
        let unit = inverse.unwrap_or(unit);
        self.units().iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
    }
}

/// A model file's energy unit in eV.
///
/// Not CODATA 2018 but the values that ASE uses by default (CODATA 2014), and with it the programs in which such
/// networks are trained and used: a user's weights must give the user's energies. The two differ by 8e-9, which is
/// nothing for a force but 4 µeV an atom in the 500 eV of an energy offset.
pub fn model_energy_unit(name: &str) -> Option<f64> {
    const ELEMENTARY_CHARGE_2014: f64 = 1.602_176_620_8e-19;
    const AVOGADRO_2014: f64 = 6.022_140_857e23;
    const HARTREE_2014: f64 = 27.211_386_024_367_243;
    match name.to_ascii_lowercase().as_str() {
        "ev" => Some(1.0),
        "mev" => Some(1e-3),
        "kcal/mol" => Some(4184.0 / AVOGADRO_2014 / ELEMENTARY_CHARGE_2014),
        "kj/mol" => Some(1000.0 / AVOGADRO_2014 / ELEMENTARY_CHARGE_2014),
        "hartree" | "ha" => Some(HARTREE_2014),
        "rydberg" | "ry" => Some(0.5 * HARTREE_2014),
        _ => None,
    }
}

/// A model file's length unit in Å; ASE's values as in [`model_energy_unit`].
pub fn model_length_unit(name: &str) -> Option<f64> {
    match name.to_ascii_lowercase().as_str() {
        "angstrom" | "å" | "ang" => Some(1.0),
        "nm" => Some(10.0),
        "pm" => Some(0.01),
        "bohr" => Some(0.529_177_210_563_841_1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values printed by NIST for the same constants, and the literature's conversion factors.
    #[test]
    fn constants_agree_with_the_published_values() {
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
        close(BOLTZMANN, 8.617_333_262e-5);
        // 1 u = 931.494 102 42 MeV/c²
        close(MASS_VELOCITY2, 931.494_102_42e6 / (2_997.924_58_f64).powi(2));
        // Faraday's constant, 96485.332 12 C/mol, is one eV a particle in J/mol.
        close(KCAL_PER_MOL, 4184.0 / 96_485.332_123_31);
        close(KJ_PER_MOL, 1000.0 / 96_485.332_123_31);
        close(HARTREE / KCAL_PER_MOL, 627.509_474_063);
        // α ħ c, from 1/α = 137.035 999 084 and ħ c = 1973.269 804 eV Å.
        close(COULOMB, 1_973.269_804_59 / 137.035_999_084);
    }

    #[test]
    fn units_may_be_written_in_several_ways() {
        assert_eq!(Dimension::Time.factor("\u{3bc}s"), Dimension::Time.factor("us"));
        for text in ["1/ns", "/ns", "ns^-1"] {
            assert_eq!(Dimension::Rate.factor(text), Some(1e-3), "{text}");
        }
        assert_eq!(Dimension::Time.factor("/ps"), None);
    }

    /// What `ase.units` gives for its own names.
    #[test]
    fn model_units_are_those_of_ase() {
        let close = |name: &str, value: f64| assert!((model_energy_unit(name).unwrap() / value - 1.0).abs() < 1e-15);
        close("kcal/mol", 0.043_364_103_900_593_22);
        close("kJ/mol", 0.010_364_269_574_711_57);
        close("rydberg", 13.605_693_012_183_622);
        assert_eq!(model_energy_unit("fortnight"), None);
    }

    /// A proton at 1 Å/fs moves at 1e5 m/s; its kinetic energy in eV is m v²/(2e).
    #[test]
    fn kinetic_energy_unit() {
        let joule = 0.5 * 1.672_621_923_69e-27 * 1e10;
        let ev = 0.5 * 1.007_276_466_621 * MASS_VELOCITY2;
        assert!((joule / ELEMENTARY_CHARGE / ev - 1.0).abs() < 1e-9);
    }
}
