//! Networks with random weights, written as model files, and systems to try them on.

use nalgebra::Vector3;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use verlet::integrate::philox::{Purpose, normal3};
use verlet::model::Model;
use verlet::system::{Cell, System};

/// A model file in the making: tensors by name, and the config.
#[derive(Clone)]
pub struct ModelFile {
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub config: serde_json::Value,
}

/// The sizes of a random network.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub features: usize,
    pub layers: usize,
    pub radial: usize,
}

/// Every kind of network that a model file can hold: `painn-bessel` has Bessel functions, in `painn-shared` all layers
/// have the same filters and the same blocks, and `painn-repulsive` has the weights of `painn`, a domain, and a repulsion
/// which many pairs of a random system feel, atoms of a small cell from their own images too.
pub const NETWORKS: [&str; 5] = ["painn", "painn-bessel", "painn-shared", "painn-repulsive", "student"];

/// Where the repulsion of `painn-repulsive` ends, Å.
pub const OUTER: [(&str, f64); 6] =
    [("H-H", 3.3), ("C-H", 1.6), ("O-H", 2.1), ("C-C", 1.7), ("C-O", 1.9), ("O-O", 1.8)];

/// From there down, as a part of [`OUTER`], it is whole.
pub const ONSET: f64 = 0.6;

pub const SMALL: Sizes = Sizes { features: 16, layers: 2, radial: 8 };

impl ModelFile {
    /// One of [`NETWORKS`] with normal weights of variance 1/inputs.
    pub fn random(network: &str, sizes: Sizes, seed: u64) -> Self {
        assert!(NETWORKS.contains(&network), "{network}");
        let Sizes { features: f, layers, radial: k } = sizes;
        let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
        let mut dense = |name: String, i: usize, o: usize, bias: bool| {
            shapes.push((format!("{name}.weight"), vec![o, i]));
            if bias {
                shapes.push((format!("{name}.bias"), vec![o]));
            }
        };
        let (painn, bessel, shared) = (network != "student", network == "painn-bessel", network == "painn-shared");
        for l in 0..if shared { 1 } else { layers } {
            if painn {
                dense(format!("representation.interactions.{l}.interatomic_context_net.0"), f, f, true);
                dense(format!("representation.interactions.{l}.interatomic_context_net.1"), f, 3 * f, true);
                dense(format!("representation.mixing.{l}.mu_channel_mix"), f, 2 * f, false);
                dense(format!("representation.mixing.{l}.intraatomic_context_net.0"), 2 * f, f, true);
                dense(format!("representation.mixing.{l}.intraatomic_context_net.1"), f, 3 * f, true);
            } else {
                dense(format!("interactions.{l}.message.rbf_to_scalar.0"), k, f, true);
                dense(format!("interactions.{l}.message.rbf_to_scalar.2"), f, 3 * f, true);
                dense(format!("interactions.{l}.update.update_mlp.0"), 2 * f, f, true);
                dense(format!("interactions.{l}.update.update_mlp.2"), f, 3 * f, true);
            }
        }
        let readout = [f, f / 2, 1];
        for r in 0..2 {
            let name = if painn { format!("output_modules.0.outnet.{r}") } else { format!("energy_head.{}", 2 * r) };
            dense(name, readout[r], readout[r + 1], true);
        }
        if painn {
            dense("representation.filter_net".into(), k, if shared { 1 } else { layers } * 3 * f, true);
            shapes.push(("representation.embedding.weight".into(), vec![20, f]));
        } else {
            shapes.push(("embedding.weight".into(), vec![20, f]));
            shapes.extend((0..layers - 1).map(|l| (format!("interactions.{l}.update.mixing_matrix"), vec![3, 3])));
        }
        let mut tensors: BTreeMap<_, _> = shapes
            .into_iter()
            .enumerate()
            .map(|(n, (name, shape))| {
                let count: usize = shape.iter().product();
                let inputs = if shape.len() == 2 && !name.contains("embedding") { shape[1] } else { 4 };
                let scale = (inputs as f64).sqrt().recip();
                let values = (0..count)
                    .map(|at| (normal3(seed, Purpose::InitialVelocities, n as u64, at as u32)[0] * scale) as f32)
                    .collect();
                (name, (shape, values))
            })
            .collect();
        let mut radial = |name: &str, values: Vec<f32>| tensors.insert(name.into(), (vec![k], values));
        let centers = (0..k).map(|n| 5.0 * n as f32 / (k - 1) as f32).collect();
        if bessel {
            let frequencies = (1..=k).map(|n| n as f32 * std::f32::consts::PI / 5.0).collect();
            radial("representation.radial_basis.freqs", frequencies);
        } else if painn {
            radial("representation.radial_basis.offsets", centers);
            radial("representation.radial_basis.widths", vec![0.6; k]);
        } else {
            radial("rbf.centers", centers);
            radial("rbf.widths", vec![0.9; k]);
        }
        let mut config = serde_json::json!({
            "format": "verlet-model/1", "architecture": if painn { "painn" } else { "student" }, "features": f,
            "interactions": layers, "cutoff": 5.0, "cutoff_function": "cosine",
            "radial_basis": {"kind": if bessel { "bessel" } else { "gaussian" }, "count": k}, "activation": "silu",
            "shared_filters": shared, "shared_interactions": shared, "norm_epsilon": 1e-8,
            "readout_layers": readout, "units": {"energy": "eV", "length": "angstrom"},
            "energy_offset": {"per_atom": -3.0}, "elements": [1, 6, 8], "provenance": "random weights"
        });
        if network == "painn-repulsive" {
            // Both tables of distances, so that both are read.
            let [shortest, outer] =
                [&OUTER[..5], &OUTER[5..]].map(|part| part.iter().copied().collect::<BTreeMap<_, _>>());
            config["domain"] = serde_json::json!({"shortest_distance": shortest});
            config["repulsion"] = serde_json::json!({"kind": "zbl", "onset": ONSET, "outer": outer});
        }
        ModelFile { tensors, config }
    }

    /// Writes the file into `folder`.
    pub fn write(&self, folder: &std::path::Path, name: &str) -> PathBuf {
        let bytes: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                (name.as_str(), (shape.clone(), values.iter().flat_map(|x| x.to_le_bytes()).collect()))
            })
            .collect();
        let views: Vec<(&str, TensorView)> = bytes
            .iter()
            .map(|(name, (shape, data))| (*name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()))
            .collect();
        let metadata = HashMap::from([("config".to_string(), self.config.to_string())]);
        let path = folder.join(name);
        safetensors::serialize_to_file(views, Some(metadata), &path).unwrap();
        path
    }

    /// Writes and loads it.
    pub fn load(&self) -> verlet::Result<Model> {
        let folder = tempfile::tempdir().unwrap();
        Model::load(self.write(folder.path(), "random.safetensors"))
    }
}

/// Atoms of H, C and O at random places no closer than 0.9 Å, in a cell or in a box of that size.
pub fn random_system(atoms: usize, cell: Cell, seed: u64) -> System {
    let size = if cell.is_periodic() { 1.0 } else { (atoms as f64 * 12.0).cbrt() };
    let mut positions: Vec<Vector3<f64>> = Vec::new();
    let mut attempt = 0;
    while positions.len() < atoms {
        attempt += 1;
        let x =
            Vector3::from(normal3(seed, Purpose::InitialVelocities, 99, attempt)).map(|x| (x * 7.3).rem_euclid(1.0));
        let r = cell.vectors().tr_mul(&(x * size));
        let apart = |other: &Vector3<f64>| {
            let images = -1..=1;
            images.clone().all(|a| {
                images.clone().all(|b| {
                    images.clone().all(|c| {
                        let shift = std::array::from_fn(|k| if cell.periodic()[k] { [a, b, c][k] } else { 0 });
                        (r - other + cell.translation(shift)).norm() > 0.9
                    })
                })
            })
        };
        if positions.iter().all(apart) {
            positions.push(r);
        }
        assert!(attempt < 1_000_000, "the cell is too small for {atoms} atoms");
    }
    let numbers = (0..atoms).map(|n| [1, 6, 8, 1, 1][n % 5]).collect();
    System::new(numbers, positions, cell).unwrap()
}
