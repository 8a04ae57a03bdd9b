use super::*;
use std::path::PathBuf;

/// A folder with one file in it.
fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

/// All frames, or the message without the folder.
fn read(name: &str, content: impl AsRef<[u8]>) -> std::result::Result<Vec<System>, String> {
    let (folder, path) = file(name, content);
    let frames = read_frames(&path).and_then(|frames| frames.map(|frame| Ok(frame?.system)).collect());
    frames.map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

fn assert_near(found: impl IntoIterator<Item = f64>, expected: &[f64]) {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?} instead of {expected:?}");
}

const TRICLINIC: &str = "\
data_triclinic
_cell_length_a 6.0
_cell_length_b 7.0
_cell_length_c 8.0
_cell_angle_alpha 80
_cell_angle_beta 95
_cell_angle_gamma 110
_space_group_name_H-M_alt 'P -1'
loop_
_symmetry_equiv_pos_as_xyz
'x,y,z'
'-x,-y,-z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Ca1 Ca 0 0 0 1.0
C1 C 0.25 0.375 0.125 1.0
";

#[test]
fn cif_has_a_triclinic_cell_and_symmetry() {
    let system = read("a.cif", TRICLINIC).unwrap().remove(0);
    // The inversion centre doubles the carbon, not the calcium on it.
    assert_eq!(system.formula(), "C2Ca");
    let expected = Cell::from_parameters([6.0, 7.0, 8.0], [80.0, 95.0, 110.0], [true; 3]).unwrap();
    assert_eq!(system.cell.periodic(), [true; 3]);
    assert_near(system.cell.vectors().iter().copied(), expected.vectors().as_slice());
    let carbon = system.atomic_numbers.iter().position(|&z| z == 6).unwrap();
    assert_near(expected.fractional(&system.positions[carbon]).iter().copied(), &[0.25, 0.375, 0.125]);
    assert!(system.velocities.is_none());
    // The extension in capitals, and compressed formats, go the same way.
    assert_eq!(read("a.CIF", TRICLINIC).unwrap().len(), 1);
}

#[test]
fn disorder_is_refused() {
    let disordered = TRICLINIC.replace("0.125 1.0", "0.125 0.5");
    let message = "a.cif: atom 2 (C1) has the occupancy 0.5; keep one of the alternatives, complete";
    assert_eq!(read("a.cif", disordered).unwrap_err(), message);
    let pdb = "\
ATOM      1  CA AALA A   1       1.000   2.000   3.000  0.50  0.00           C
ATOM      2  CA BALA A   1       1.100   2.000   3.000  0.50  0.00           C
END
";
    let message = "a.pdb: atom 2 (CA of residue ALA) is at the alternate location B; keep one of the alternatives";
    assert_eq!(read("a.pdb", pdb).unwrap_err(), message);
}

const PDB: &str = "\
CRYST1   20.000   21.000   22.000  90.00 100.00  90.00 P 1           1
MODEL        1
ATOM      1  CA  ALA A   1       1.000   2.000  -3.250  1.00  0.00           C
HETATM    2 CA    CA A   2       4.000   5.000   6.000  1.00  0.00          CA
ENDMDL
MODEL        2
ATOM      1  CA  ALA A   1       1.500   2.000  -3.250  1.00  0.00           C
HETATM    2 CA    CA A   2       4.000   5.000   6.000  1.00  0.00          CA
ENDMDL
END
";

#[test]
fn pdb_has_elements_and_one_cell_for_all_models() {
    let models = read("a.pdb", PDB).unwrap();
    assert_eq!(models.len(), 2);
    let cell = Cell::from_parameters([20.0, 21.0, 22.0], [90.0, 100.0, 90.0], [true; 3]).unwrap();
    for model in &models {
        assert_eq!(model.atomic_numbers, [6, 20]);
        assert_near(model.cell.vectors().iter().copied(), cell.vectors().as_slice());
        assert_eq!(model.cell.vectors()[(1, 0)], 0.0);
        assert_eq!(model.cell.periodic(), [true; 3]);
    }
    assert_eq!(models[0].positions[0], Vector3::new(1.0, 2.0, -3.25));
    assert_eq!(models[1].positions[0].x, 1.5);
    let (_folder, path) = file("a.pdb", PDB);
    assert_eq!(read_structure(&path, 1).unwrap().positions[0].x, 1.5);
    let error = read_structure(&path, 2).unwrap_err().to_string();
    assert!(error.ends_with("a.pdb has 2 frames, so there is no frame 3"), "{error}");
}

#[test]
fn the_placeholder_cell_of_pdb_is_no_cell() {
    let pdb = PDB.replace("20.000   21.000   22.000  90.00 100.00", " 1.000    1.000    1.000  90.00  90.00");
    assert!(read("a.pdb", pdb).unwrap().iter().all(|model| model.cell == Cell::open()));
}

/// Without elements in columns 77-78 the residue tells them.
#[test]
fn pdb_without_elements() {
    let short: String = PDB.lines().map(|line| line.get(..66).unwrap_or(line).to_owned() + "\n").collect();
    assert_eq!(read("a.pdb", &short).unwrap()[0].atomic_numbers, [6, 20]);
    let ligand = short.replace("CA  ALA", "CA  LIG").replace("CA    CA A   2", "N    LIG A   1");
    assert_eq!(
        read("a.pdb", ligand).unwrap_err(),
        "a.pdb, frame 1: atom 1 (CA of residue LIG) has no element, and its name does not tell it; use a format with \
         elements, such as extended XYZ or PDB with columns 77-78"
    );
}

#[test]
fn gro_is_in_nanometres_and_picoseconds() {
    let gro = "\
water and an ion
4
    1SOL     OW    1   0.100   0.200   0.300  0.1000 -0.2000  0.3000
    1SOL    HW1    2   0.200   0.200   0.300  0.0000  0.0000  1.0000
    1SOL    HW2    3   0.100   0.300   0.300  0.0000  0.0000  0.0000
    2CL      CL    4   1.000   1.000   1.000  0.0000  0.0000  0.0000
   3.00000   2.50000   2.00000   0.00000   0.00000   1.00000   0.00000  -0.50000   0.25000
";
    let system = read("a.gro", gro).unwrap().remove(0);
    assert_eq!(system.atomic_numbers, [8, 1, 1, 17]);
    assert_near(system.positions[0].iter().copied(), &[1.0, 2.0, 3.0]);
    assert_near(system.velocities.unwrap()[0].iter().copied(), &[0.001, -0.002, 0.003]);
    // v1(x) v2(y) v3(z) v1(y) v1(z) v2(x) v2(z) v3(x) v3(y); rows here are the edges.
    let edges = Matrix3::new(30.0, 0.0, 0.0, 10.0, 25.0, 0.0, -5.0, 2.5, 20.0);
    assert_near(system.cell.vectors().iter().copied(), edges.as_slice());
    let at_rest: String = gro.lines().map(|line| line.get(..44).unwrap_or(line).to_owned() + "\n").collect();
    let at_rest = at_rest.replace("   3.00000   2.50000   2.00000   0.00000   0.0", "   0.00000   0.00000   0.00000");
    let system = read("a.gro", at_rest).unwrap().remove(0);
    assert!(system.velocities.is_none());
    assert_eq!(system.cell, Cell::open());
}

#[test]
fn mol2_and_sdf() {
    let mol2 = "\
@<TRIPOS>MOLECULE
cyanide
2 1
SMALL
NO_CHARGES

@<TRIPOS>ATOM
1 CL 0.0 0.0 0.0 Cl 1 LIG
2 CA 1.2 0.0 0.0 C.1 1 LIG
@<TRIPOS>BOND
1 1 2 1
";
    assert_eq!(read("a.mol2", mol2).unwrap()[0].atomic_numbers, [17, 6]);
    let sdf = "\
hydrogen chloride
 by hand

  2  1  0  0  0  0            999 V2000
    0.0000    0.0000    0.0000 Cl  0  0  0  0  0  0  0  0  0  0  0  0
    1.2700    0.0000    0.0000 H   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0  0  0  0
M  END
$$$$
";
    let system = read("a.sdf", sdf.repeat(2)).unwrap().remove(1);
    assert_eq!(system.formula(), "ClH");
    assert_eq!(system.positions[1].x, 1.27);
    assert_eq!(system.cell, Cell::open());
}

/// LAMMPS files do not say in which units their velocities are.
#[test]
fn lammps_trajectory() {
    let frame = "\
ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 10
0 10
0 10
ITEM: ATOMS id element x y z vx vy vz
2 H 1 0 0 1 1 1
1 Cl 2 0 0 1 1 1
";
    let systems = read("a.lammpstrj", frame.repeat(3)).unwrap();
    assert_eq!(systems.len(), 3);
    assert_eq!(systems[0].atomic_numbers, [17, 1]);
    assert_eq!(systems[0].positions[0].x, 2.0);
    assert!(systems[0].velocities.is_none());
    assert_eq!(systems[0].cell.volume(), 1000.0);
}

#[test]
fn extended_xyz_goes_to_our_reader() {
    let xyz = "1\nLattice=\"0 5 0 5 0 0 0 0 5\" pbc=\"T F T\" energy=-1.5\nHe 0 0 0.1\n";
    for name in ["a.xyz", "a.extxyz", "a.XYZ"] {
        let system = read(name, xyz).unwrap().remove(0);
        assert!(system.cell.is_left_handed());
        assert_eq!(system.cell.periodic(), [true, false, true]);
    }
    let (_folder, path) = file("a.xyz", xyz);
    let frame = read_frames(&path).unwrap().next().unwrap().unwrap();
    assert_eq!(frame.info("energy").and_then(|value| value.as_real()), Some(-1.5));
    assert_eq!(
        read("a.xyz", "1\n\nQq 0 0 0\n").unwrap_err().split(';').next(),
        Some("a.xyz, line 3: atom 1 of 1 in frame 1 is the unknown element 'Qq'")
    );
}

/// Broken files, and how the message that each must get begins.
#[test]
fn errors_are_one_sentence_with_the_file() {
    for (name, content, message) in [
        ("a.pdb", "", "a.pdb is empty"),
        ("a.xyz", "", "a.xyz is empty"),
        ("a.xyz", "\n", "a.xyz holds no frame"),
        ("POSCAR", "cubic\n1.0\n", "POSCAR has a format that is not known; known are .xyz, .extxyz, "),
        ("a.vasp", "cubic\n1.0\n", "a.vasp has a format that is not known; known are .xyz, .extxyz, "),
        ("a.dcd", "no", "a.dcd has the format DCD, which holds no elements; "),
        ("a.smi", "CCO\n", "a.smi has the format SMI, which holds no positions that can be read; "),
        ("a.cif", "data_x\n_cell_length_a 3\n", "a.cif holds no structure (read in the format CIF)"),
        ("a.gro", "title\n7\n", "a.gro cannot be read in the format GRO: "),
        (
            "a.pdb",
            "ATOM      1  N   ALA\nEND\n",
            "a.pdb: it cannot be read in the format PDB: ATOM record is too small: ",
        ),
        ("a.pdb", "CRYST1   10.000   10.000    0.000  90.00  90.00\nEND\n", "a.pdb: "),
    ] {
        let error = read(name, content).unwrap_err();
        assert!(error.starts_with(message), "{error}");
        assert!(!error.contains('\n'));
    }
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| read_structure(path, 0).unwrap_err().to_string();
    assert!(error(folder.path()).ends_with(" is a folder, not a structure file"));
    assert!(error(&folder.path().join("no.pdb")).ends_with("no.pdb does not exist"));
}

/// chemfiles' interface panics on such text, in messages, warnings and names.
#[test]
fn bytes_that_are_not_utf8_are_no_panic() {
    let latin: Vec<u8> = PDB.replace("MODEL        1", "STRANGE Å").chars().map(|c| c as u32 as u8).collect();
    assert_eq!(read("a.pdb", latin).unwrap().len(), 2);
    let name: Vec<u8> = PDB.replacen(" CA  ALA", " CÅ  ALA", 1).chars().map(|c| c as u32 as u8).collect();
    assert_eq!(read("a.pdb", name).unwrap_err(), "a.pdb, frame 1: it holds text that is not UTF-8, or is damaged");
    let noise: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for name in ["a.pdb", "a.gro", "a.cif", "a.mmcif", "a.mol2", "a.sdf", "a.lammpstrj", "a.cml", "a.arc", "a.mmtf"] {
        assert!(read(name, &noise).is_err(), "{name}");
    }
}
