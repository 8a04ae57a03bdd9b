use super::*;
use crate::backend::{Departure, Outside};
use nalgebra::Vector3;
use proptest::prelude::*;

fn checkpoint() -> Checkpoint {
    let vectors = |scale: f64| (0..3).map(|n| Vector3::new(n as f64, -0.0, 1.0 / 3.0) * scale).collect::<Vec<_>>();
    Checkpoint {
        run: Provenance {
            version: "0.1.0".into(),
            input: "/home/jürgen/in.toml".into(),
            text: "title = \"Wasser – grün\"\n".into(),
            overrides: vec!["dynamics.steps=7".into(), String::new()],
            model_hash: "0123abcd".into(),
            skin: 0.7,
            precision: Precision::Mixed,
            direct_filters: true,
        },
        steps: u64::MAX,
        atomic_numbers: vec![8, 1, 1],
        masses: vec![15.999, 1.008, 2.014],
        cell: Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 80.0, 70.0], [true, true, false]).unwrap(),
        state: State {
            step: 41,
            positions: vectors(1.1),
            velocities: vectors(1e-300),
            heat: -0.1,
            kinetic: f64::MIN_POSITIVE,
            list_positions: Vec::new(),
            list_rebuilds: 3,
        },
        outputs: BTreeMap::from([
            ("a.h5md".into(), Position { frames: 5, rows: 42, bytes: 0 }),
            ("b.dcd".into(), Position { frames: 5, rows: 0, bytes: 1234 }),
        ]),
    }
}

#[test]
fn what_was_written_comes_back() {
    let saved = checkpoint();
    let bytes = saved.encode();
    let read = Checkpoint::decode(&bytes).unwrap();
    assert_eq!(read, saved);
    // −0.0 equals 0.0, but its bits do not.
    assert_eq!(read.encode(), bytes);
    assert_eq!(read.system().unwrap().masses, saved.masses);
}

#[test]
fn no_part_of_a_checkpoint_is_a_checkpoint() {
    let bytes = checkpoint().encode();
    for length in 0..bytes.len() {
        assert!(Checkpoint::decode(&bytes[..length]).is_err(), "{length}");
    }
    assert!(Checkpoint::decode(&[&bytes[..], &[0]].concat()).is_err());
    let mut fewer = checkpoint();
    fewer.masses.pop();
    assert!(Checkpoint::decode(&fewer.encode()).is_err());
}

fn set() -> SetCheckpoint {
    let Checkpoint { run, steps, atomic_numbers, masses, cell, state, .. } = checkpoint();
    let output = Position { frames: 2, rows: 3, bytes: 0 };
    let member = Member {
        name: "0001".into(),
        atomic_numbers,
        masses,
        cell,
        state,
        output,
        failure: None,
        departures: Vec::new(),
    };
    let close = |shortest| Outside::Distance { atoms: [0, 2], elements: [8, 1], distance: 0.7, shortest };
    let outside = [close(Some(0.8)), close(None), Outside::Energy { per_atom: -1.5, range: [-1.0, 0.5] }];
    let departures = outside.into_iter().zip(12..).map(|(outside, step)| Departure { step, outside }).collect();
    let failure = Some((17, "it exploded".into()));
    let other = Member { name: "hot-0001".into(), failure, departures, ..member.clone() };
    SetCheckpoint { run, steps, step: 41, members: vec![member, other] }
}

#[test]
fn a_checkpoint_of_many_systems_comes_back_and_is_not_that_of_one() {
    let (saved, folder) = (set(), tempfile::tempdir().unwrap());
    let bytes = saved.encode();
    assert_eq!(SetCheckpoint::decode(&bytes).unwrap(), saved);
    for length in 0..bytes.len() {
        assert!(SetCheckpoint::decode(&bytes[..length]).is_err(), "{length}");
    }
    assert!(Checkpoint::decode(&bytes).is_err() && SetCheckpoint::decode(&checkpoint().encode()).is_err());
    let generations = Generations::of(folder.path());
    assert!(!generations.are_of_a_set());
    generations.add(&checkpoint()).unwrap();
    assert!(!generations.are_of_a_set());
    generations.replace(&saved).unwrap();
    assert!(generations.are_of_a_set());
}

proptest! {
    #[test]
    fn no_flipped_bit_goes_unseen(at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = checkpoint().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(Checkpoint::decode(&bytes).is_err());
    }

    /// Also behind a right checksum: garbage neither panics nor asks for memory that is not there.
    #[test]
    fn garbage_is_refused(content in prop::collection::vec(any::<u8>(), 0..400), keep in 0..200usize) {
        prop_assert!(Checkpoint::decode(&content).is_err());
        let good = checkpoint().encode();
        let content = [&good[codec::HEAD..codec::HEAD + keep], &content].concat();
        prop_assert!(Checkpoint::decode(&codec::sign(codec::ONE, &content)).is_err());
    }
}

#[test]
fn the_checkpoint_before_the_last_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let generations = Generations::of(folder.path());
    assert!(!generations.exist());
    let at = |step| {
        let mut checkpoint = checkpoint();
        checkpoint.state.step = step;
        checkpoint
    };
    for step in 1..4 {
        generations.add(&at(step)).unwrap();
    }
    let steps = || {
        [generations.current(), generations.previous()]
            .map(|path| Generations::read::<Checkpoint>(&path).unwrap().state.step)
    };
    assert_eq!(steps(), [3, 2]);
    generations.replace(&at(9)).unwrap();
    assert_eq!(steps(), [9, 2]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_is_no_checkpoint_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.vlt");
    let complaint = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Generations::read::<Checkpoint>(&path).unwrap_err().to_string()
    };
    let good = checkpoint().encode();
    let mut newer = good.clone();
    newer[8] = 2;
    for (bytes, words) in [
        (&b""[..], "is no checkpoint of verlet, or only its beginning"),
        (b"PK\x03\x04 something else entirely", "is no checkpoint of verlet"),
        (&good[..good.len() - 1], "is damaged: it has another length than it was written with"),
        (&newer, "was written by a version of verlet with another format"),
    ] {
        let message = complaint(bytes);
        assert!(message.contains("x.vlt ") && message.contains(words), "{message}");
    }
    let mut flipped = good;
    flipped[100] ^= 4;
    assert!(complaint(&flipped).contains("is damaged: its content is not what its checksum says"));
}
