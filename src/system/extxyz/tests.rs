use super::*;
use crate::system::Cell;
use proptest::prelude::*;

fn read(text: impl AsRef<[u8]>) -> crate::Result<Vec<Frame>> {
    Reader::new(text.as_ref(), "a.xyz").collect()
}

fn one(text: &str) -> Frame {
    let mut frames = read(text).unwrap();
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

fn written(frames: &[Frame]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), "a.xyz");
    for frame in frames {
        writer.write(frame).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn plain_xyz() {
    let frames =
        read("3\n8 waters, of which e = 1\nO 0 0 0 ignored 7\n h 0.0 .75 -5D-01\n1 0 -7.5e-1 -0.5\n\n\n1\n\nhe 1.0D+00 2 3\n\n").unwrap();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].system.atomic_numbers, [8, 1, 1]);
    assert_eq!(frames[0].system.cell, Cell::open());
    // What is no pair is for people.
    assert_eq!(frames[0].info, [("e".to_owned(), Value::Integer(1))]);
    assert!(frames[0].columns.is_empty());
    assert_eq!(frames[1].system.positions, [Vector3::new(1.0, 2.0, 3.0)]);
}

#[test]
fn line_ends_and_byte_order_mark_do_not_matter() {
    let unix = "\u{feff}1\nLattice=\"5 0 0 0 5 0 0 0 5\" a=1\nHe 1 2 3\n1\n\nHe 1 2 4";
    let windows = unix.replace('\n', "\r\n") + "\r\n \r\n";
    for text in [unix.to_owned(), windows] {
        let frames = read(&text).unwrap();
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].info, [("a".to_owned(), Value::Integer(1))]);
        assert_eq!(frames[0].system.cell.periodic(), [true; 3]);
        assert_eq!(frames[1].system.positions[0].z, 4.0);
    }
    // An Å in Latin-1.
    assert_eq!(read(b"1\nin \xc5\nHe 1 2 3").unwrap().len(), 1);
}

#[test]
fn cells() {
    let frame = one("1\nlattice=\"1 2 3 0 5 6 0.5 0 9\" PBC=\"T T F\" properties=species:S:1:pos:R:3\nHe 0 0 0\n");
    assert_eq!(frame.system.cell.vectors(), &Matrix3::new(1.0, 2.0, 3.0, 0.0, 5.0, 6.0, 0.5, 0.0, 9.0));
    assert_eq!(frame.system.cell.periodic(), [true, true, false]);
    for cell in ["[[0,5,0],[5,0,0],[0,0,5]]", "{0 5 0 5 0 0 0 0 5}", "'0, 5.0D0, 0, 5 0 0 0 0 5'"] {
        let frame = one(&format!("1\nLattice = {cell}\nHe 0 0 0\n"));
        assert!(frame.system.cell.is_left_handed());
        assert_eq!(frame.system.cell.periodic(), [true; 3]);
    }
    assert_eq!(one("1\npbc=F Lattice=\"5 0 0 0 5 0 0 0 0\"\nHe 0 0 0\n").system.cell.periodic(), [false; 3]);
}

#[test]
fn values_of_the_frame() {
    let line = r#"e=-1.5 n=3 ok bad=F v="1 2.5 3" i=[1, 2] m=[[1,2],[3,4.0]] l="T F" t="two words" q="a \"b\" c:\d" 
        j="_JSON {\"a\": [1, 2]}" s='single "x"' sum=a=b spaced = 7 "odd key"=1 empty="" d=1.0D-3 id=12d5 water's"#;
    let frame = one(&format!("1\nProperties=species:S:1:pos:R:3 {}\nHe 0 0 0\n", line.replace('\n', " ")));
    let expected: Vec<(&str, Value)> = vec![
        ("e", (-1.5).into()),
        ("n", Value::Integer(3)),
        ("ok", true.into()),
        ("bad", false.into()),
        ("v", vec![1.0, 2.5, 3.0].into()),
        ("i", Value::Integers(vec![1, 2])),
        ("m", vec![1.0, 2.0, 3.0, 4.0].into()),
        ("l", Value::Logicals(vec![true, false])),
        ("t", "two words".into()),
        ("q", r#"a "b" c:\d"#.into()),
        ("j", r#"_JSON {"a": [1, 2]}"#.into()),
        ("s", "single \"x\"".into()),
        ("sum", "a=b".into()),
        ("spaced", Value::Integer(7)),
        ("odd key", Value::Integer(1)),
        ("empty", "".into()),
        ("d", 1e-3.into()),
        ("id", "12d5".into()),
        ("water's", true.into()),
    ];
    assert_eq!(frame.info, expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Vec<_>>());
    // The last of several wins, as in ASE.
    assert_eq!(one("1\na=1 b=2 a=3\nHe 0 0 0\n").info("a"), Some(&Value::Integer(3)));
}

#[test]
fn motion_and_masses_become_part_of_the_system() {
    let frame =
        one("1\nProperties=id:I:1:Z:I:1:pos:R:3:mass:R:1:velo:R:3:tag:S:2:fixed:L:1\n7 6 0 0 0 13.5 1 2 3 a b T\n");
    assert_eq!(frame.system.masses, [13.5]);
    assert_eq!(frame.system.velocities, Some(vec![Vector3::new(1.0, 2.0, 3.0)]));
    let names: Vec<_> = frame.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "tag", "fixed"]);
    assert_eq!(frame.column("tag").unwrap().data, ColumnData::Texts(vec!["a".into(), "b".into()]));
    // ½ m v² in eV from p²/2m.
    let frame = one("1\nProperties=species:S:1:pos:R:3:momenta:R:3\nC 0 0 0 2 0 0\n");
    let velocities = frame.system.velocities.unwrap();
    let kinetic = crate::system::kinetic_energy(&frame.system.masses, &velocities);
    assert!((kinetic - 4.0 / (2.0 * frame.system.masses[0])).abs() < 1e-15);
}

/// Broken files, and the message that each must get.
#[test]
fn errors_say_where_and_what() {
    let header = "Properties=species:S:1:pos:R:3";
    for (text, message) in [
        ("", "a.xyz holds no frame; an XYZ file begins with the number of atoms"),
        ("\n \n", "a.xyz holds no frame; an XYZ file begins with the number of atoms"),
        (
            "water\n",
            "a.xyz, line 1: expected the number of atoms of frame 1, found 'water'; an XYZ file begins with that number",
        ),
        ("0\n\n", "a.xyz, line 1: the frame has no atoms"),
        (
            "-1\n\n",
            "a.xyz, line 1: expected the number of atoms of frame 1, found '-1'; an XYZ file begins with that number",
        ),
        ("2", "a.xyz, line 2: the file ends where frame 1 should have its comment"),
        ("2\n\nH 0 0 0\n", "a.xyz, line 4: the file ends after 1 of the 2 atoms that line 1 announces for frame 1"),
        (
            "1\n\nH 0 0 0\nH 0 0 1\n",
            "a.xyz, line 4: frame 1 ends before this line, 'H 0 0 1', if it has as many atoms as line 1 announces, 1; correct \
             that number",
        ),
        (
            "2\n\nH 0 0 0\n2\n\nH 0 0 0\n",
            "a.xyz, line 4: atom 2 of 2 in frame 1 has too few columns for species:S:1:pos:R:3: '2'",
        ),
        ("1\n\nH 0 0\n", "a.xyz, line 3: atom 1 of 1 in frame 1 has too few columns for species:S:1:pos:R:3: 'H 0 0'"),
        (
            &format!("1\n{header}\nH 0 0 0 0\n"),
            "a.xyz, line 3: atom 1 of 1 in frame 1 has more columns than species:S:1:pos:R:3: 'H 0 0 0 0'",
        ),
        (
            "1\n\nQq 0 0 0\n",
            "a.xyz, line 3: atom 1 of 1 in frame 1 is the unknown element 'Qq'; give a symbol such as Cl or an atomic number \
             up to 118",
        ),
        ("1\n\nH 0 0 x\n", "a.xyz, line 3: atom 1 of 1 in frame 1 has 'x' in column pos, where a number was expected"),
        (
            "1\n\nH 0 nan 0\n",
            "a.xyz, line 3: atom 1 of 1 in frame 1 has 'nan' in column pos, where a finite number was expected",
        ),
        (
            "1\n\nH 0 1e999 0\n",
            "a.xyz, line 3: atom 1 of 1 in frame 1 has '1e999' in column pos, where a finite number was expected",
        ),
        (
            &format!("1\n{header}:n:I:1\nH 0 0 0 1.5\n"),
            "a.xyz, line 3: atom 1 of 1 in frame 1 has '1.5' in column n, where an integer was expected",
        ),
        (
            "1\nLattice=\"1 2 3\"\nH 0 0 0\n",
            "a.xyz, line 2: Lattice must be nine numbers in quotes, \"ax ay az bx by bz cx cy cz\" in Å, not '1 2 3'",
        ),
        (
            "1\nLattice=\"5 0 0 0 5 0 0 0 5\nH 0 0 0\n",
            "a.xyz, line 2: Lattice must be nine numbers in quotes, \"ax ay az bx by bz cx cy cz\" in Å, not '\"5'",
        ),
        (
            "1\nLattice=\"5 0 0 0 5 0 0 0 0\"\nH 0 0 0\n",
            "a.xyz, line 2: the cell is periodic along c but that edge has no length; give the edge or switch that direction \
             off in pbc",
        ),
        (
            "1\npbc=\"T T\"\nH 0 0 0\n",
            "a.xyz, line 2: pbc must be three of T and F in quotes, such as \"T T F\", not 'T T'",
        ),
        (
            "1\nProperties=species:S:1:pos:R:3:x:Q:1\nH 0 0 0 0\n",
            "a.xyz, line 2: Properties gives 'x' the unknown type 'Q'; known are S (text), R (real), I (integer), L (T or F)",
        ),
        (
            "1\nProperties=species:S:1:pos:R\nH 0 0 0 0\n",
            "a.xyz, line 2: Properties must be name:type:columns repeated, such as species:S:1:pos:R:3, not \
             'species:S:1:pos:R'",
        ),
        (
            "1\nProperties=species:S:1:pos:R:2\nH 0 0\n",
            "a.xyz, line 2: Properties needs the positions as pos:R:3, but is 'species:S:1:pos:R:2'",
        ),
        (
            "1\nProperties=pos:R:3\n0 0 0\n",
            "a.xyz, line 2: Properties needs the elements as species:S:1 or Z:I:1, but is 'pos:R:3'",
        ),
        (
            &format!("1\n{header}:f:R:0\nH 0 0 0\n"),
            "a.xyz, line 2: Properties gives 'f' '0' columns, which is no count",
        ),
        (&format!("1\n{header}:pos:R:3\nH 0 0 0\n"), "a.xyz, line 2: Properties names 'pos' twice"),
        (
            &format!("2\n{header}:mass:R:1\nH 0 0 0 1\nH 0 0 0 -1\n"),
            "a.xyz, line 4: atom 2 has the mass -1 u, which is not positive",
        ),
        (
            &format!("2\n{header}:vel:R:3\nH 0 0 0 1 1 1\nH 0 0 0 1 inf 1\n"),
            "a.xyz, line 4: atom 2 has inf in vel, not a finite number",
        ),
        (&format!("1\n{header}:vel:R:1\nH 0 0 0 1\n"), "a.xyz, line 2: column vel must be vel:R:3 in Properties"),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), message);
    }
}

/// The iteration ends at the first error, and the frames before it are good.
#[test]
fn frames_before_an_error_are_delivered() {
    let mut reader = Reader::new(&b"1\n\nH 0 0 0\n1\n\nH 0 0\n1\n\nH 0 0 0\n"[..], "a.xyz");
    assert!(reader.next().unwrap().is_ok());
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

#[test]
fn what_cannot_be_written_is_refused_whole() {
    let frame = one("1\nProperties=species:S:1:pos:R:3:n:I:1 a=1\nHe 0 0 0 1\n");
    let words = |word: &str| Column { name: "w".into(), width: 1, data: ColumnData::Texts(vec![word.into()]) };
    let broken: [&dyn Fn(&mut Frame); 9] = [
        &|f| f.set_info("", 1.0),
        &|f| f.set_info("PBC", true),
        &|f| f.info.push(("a".into(), 2.0.into())),
        &|f| f.set_column(Column::scalars("a b", vec![0.0])),
        &|f| f.set_column(Column::scalars("vel", vec![0.0])),
        &|f| f.set_column(Column::scalars("x", vec![0.0, 1.0])),
        &|f| f.columns.push(f.columns[0].clone()),
        &|f| f.set_column(words("a b")),
        &|f| f.set_column(words("")),
    ];
    for damage in broken {
        let mut frame = frame.clone();
        damage(&mut frame);
        let mut writer = Writer::new(Vec::new(), "a.xyz");
        assert!(writer.write(&frame).unwrap_err().to_string().starts_with("a.xyz: "));
        assert!(writer.finish().unwrap().is_empty());
    }
}

fn finite() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    prop_oneof![POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO, -100.0..100.0]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        finite().prop_map(Value::Real),
        any::<i64>().prop_map(Value::Integer),
        any::<bool>().prop_map(Value::Logical),
        prop::collection::vec(finite(), 2..10).prop_map(Value::Reals),
        prop::collection::vec(any::<i64>(), 2..10).prop_map(Value::Integers),
        prop::collection::vec(any::<bool>(), 2..4).prop_map(Value::Logicals),
        any::<String>()
            .prop_filter("texts that look like numbers become numbers", |text| {
                matches!(Value::parse(text), Value::Text(_))
            })
            .prop_map(Value::Text),
    ]
}

fn column(atoms: usize) -> impl Strategy<Value = Column> {
    (1usize..4).prop_flat_map(move |width| {
        let n = atoms * width;
        let data = prop_oneof![
            prop::collection::vec(finite(), n).prop_map(ColumnData::Reals),
            prop::collection::vec(any::<i64>(), n).prop_map(ColumnData::Integers),
            prop::collection::vec(any::<bool>(), n).prop_map(ColumnData::Logicals),
            prop::collection::vec("[!-~]{1,5}|[α-ω]{1,3}", n).prop_map(ColumnData::Texts),
        ];
        data.prop_map(move |data| Column { name: String::new(), width, data })
    })
}

fn vectors(atoms: usize) -> impl Strategy<Value = Vec<Vector3<f64>>> {
    prop::collection::vec(prop::array::uniform3(finite()).prop_map(Vector3::from), atoms)
}

fn cell() -> impl Strategy<Value = Cell> {
    let edges = prop::array::uniform9(-20.0..20.0f64).prop_map(|x| Matrix3::from_row_slice(&x));
    let cells = (edges, prop::array::uniform3(any::<bool>()));
    prop_oneof![
        Just(Cell::open()),
        cells.prop_filter_map("edges in a plane", |(edges, periodic)| Cell::new(edges, periodic).ok()),
    ]
}

prop_compose! {
    fn frame()(atoms in 1usize..6)(
        // Those whose weight is known.
        atomic_numbers in prop::collection::vec(1u8..=94, atoms),
        positions in vectors(atoms),
        cell in cell(),
        velocities in prop::option::of(vectors(atoms).prop_filter("momenta overflow", |velocities| velocities.iter().all(|v| v.amax() < 1e300))),
        masses in prop::option::of(prop::collection::vec(1e-3..1e3f64, atoms)),
        info in prop::collection::btree_map("[^\\p{Z}\\p{C}]{1,6}|[ -~]{1,6}", value(), 0..6),
        columns in prop::collection::btree_map("[a-zA-Z_][a-z0-9_é]{4,6}", column(atoms), 0..4),
    ) -> Frame {
        let mut system = System::new(atomic_numbers, positions, cell).unwrap();
        system.velocities = velocities;
        system.masses = masses.unwrap_or(system.masses);
        let mut frame = Frame::new(system);
        frame.info = info.into_iter().filter(|(key, _)| !key.eq_ignore_ascii_case("pbc")).collect();
        frame.columns = columns.into_iter().map(|(name, column)| Column { name, ..column }).collect();
        frame
    }
}

/// Equality of bits: −0 is not 0.
fn identical(a: &Frame, b: &Frame) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

proptest! {
    #[test]
    fn own_output_is_read_bit_for_bit(frames in prop::collection::vec(frame(), 1..4)) {
        let text = written(&frames);
        let back = read(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{}", String::from_utf8_lossy(&text))))?;
        prop_assert_eq!(frames.len(), back.len());
        for (a, b) in frames.iter().zip(&back) {
            prop_assert!(identical(a, b), "{:#?}\n{:#?}\n{}", a, b, String::from_utf8_lossy(&text));
        }
        prop_assert_eq!(text, written(&back));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC*") {
        let _ = read(&bytes);
        let _ = read(format!("1\n{text}\nH 0 0 0\n"));
        let _ = read(format!("1\nProperties={text}\nH 0 0 0\n"));
        let _ = read(format!("2\nProperties=species:S:1:pos:R:3:x:L:2\n{text}\n"));
    }

    /// Damage that random text hardly ever does: a good file with a piece replaced.
    #[test]
    fn no_damage_makes_it_panic(
        frames in prop::collection::vec(frame(), 1..3),
        at in any::<prop::sample::Index>(),
        cut in 0usize..20,
        piece in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..8),
            "[0-9=\"'\\[\\]{}\\\\:, \n\r]{0,8}".prop_map(String::into_bytes),
            Just(b"99999999999999999999999".to_vec()),
        ],
    ) {
        let mut text = written(&frames);
        let start = at.index(text.len());
        let end = (start + cut).min(text.len());
        text.splice(start..end, piece);
        if let Ok(frames) = read(&text) {
            for frame in frames {
                prop_assert!(frame.system.positions.iter().all(|r| r.iter().all(|x| x.is_finite())));
            }
        }
    }
}
