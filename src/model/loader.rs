//! From a safetensors file to a [`Model`].

use super::container;
use super::filter::{RadialFilter, RadialMap};
use super::weights::Tensors;
use super::{Architecture, Layer, Model, Spec, Update};
use crate::elements;
use crate::error::{Error, Result};
use nalgebra::Matrix3;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::OnceLock;

pub(super) fn load(path: &Path) -> Result<Model> {
    let file = path.display().to_string();
    let bytes = container::read(path)?;
    let broken =
        |error: safetensors::SafeTensorError| Error::Model(format!("{file} is damaged: {error}; copy it again"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let json = metadata.metadata().as_ref().and_then(|entries| entries.get("config")).ok_or_else(|| {
        Error::Model(format!(
            "{file} has no \"config\" entry in its metadata, so it is not a model file of this program; weights of \
             other programs must be converted first"
        ))
    })?;
    let spec = Spec::parse(&file, json)?;
    let mut tensors = Tensors::new(&file, &SafeTensors::deserialize(&bytes).map_err(broken)?);
    let parts = match spec.architecture {
        Architecture::Painn => painn(&spec, &mut tensors)?,
        Architecture::Student => student(&spec, &mut tensors)?,
    };
    tensors.finish()?;
    let largest = *spec.elements.last().expect("the spec has elements") as usize;
    if largest * spec.features >= parts.embedding.len() {
        return Err(Error::Model(format!(
            "{file}: the embedding has {} rows, too few for {}, which the file's config lists among its elements",
            parts.embedding.len() / spec.features,
            elements::symbol(largest as u8)
        )));
    }
    Ok(Model {
        hash: Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        name: path.file_name().map_or(file.clone(), |name| name.to_string_lossy().into_owned()),
        embedding: parts.embedding,
        filter: parts.filter,
        table: OnceLock::new(),
        layers: parts.layers,
        readout: parts.readout,
        energy_unit: spec.energy_unit,
        offsets: spec.offsets.iter().map(|x| x * spec.energy_unit).collect(),
        // The student's authors guard their division by d with 1e-8 of their length unit.
        direction_epsilon: match spec.architecture {
            Architecture::Painn => 0.0,
            Architecture::Student => 1e-8 * spec.length_unit,
        },
        spec,
    })
}

/// What the two architectures fill differently.
struct Parts {
    embedding: Vec<f64>,
    filter: RadialFilter,
    layers: Vec<Layer>,
    readout: Vec<super::Dense>,
}

/// The embedding may have any number of rows (one an atomic number, from 0).
fn embedding(tensors: &mut Tensors, name: &str, features: usize) -> Result<Vec<f64>> {
    let rows = tensors.rows(name).unwrap_or(0);
    tensors.take(name, &[rows, features])
}

fn readout(spec: &Spec, tensors: &mut Tensors, name: impl Fn(usize) -> String) -> Result<Vec<super::Dense>> {
    let widths = &spec.readout_layers;
    (0..widths.len() - 1).map(|k| tensors.take_dense(&name(k), widths[k], widths[k + 1], true)).collect()
}

fn painn(spec: &Spec, tensors: &mut Tensors) -> Result<Parts> {
    let f = spec.features;
    let k = spec.radial_count;
    let offsets = tensors.take("representation.radial_basis.offsets", &[k])?;
    let widths = tensors.take_widths("representation.radial_basis.widths", k)?;
    let all = tensors.take_dense("representation.filter_net", k, spec.interactions * 3 * f, true)?;
    // One net makes the filters of every layer: rows l·3F … (l+1)·3F are layer l's.
    let maps = (0..spec.interactions)
        .map(|l| {
            RadialMap::linear(&super::Dense {
                inputs: k,
                outputs: 3 * f,
                weight: all.weight[l * 3 * f * k..(l + 1) * 3 * f * k].to_vec(),
                bias: all.bias[l * 3 * f..(l + 1) * 3 * f].to_vec(),
            })
        })
        .collect();
    let unit = spec.length_unit;
    let filter = RadialFilter::new(
        spec.cutoff * unit,
        offsets.iter().map(|m| m * unit).collect(),
        // exp(−(d − m)²/(2 w²))
        widths.iter().map(|w| 0.5 / (w * unit).powi(2)).collect(),
        maps,
    );
    let layers = (0..spec.interactions)
        .map(|l| {
            let message = format!("representation.interactions.{l}.interatomic_context_net");
            let mixing = format!("representation.mixing.{l}");
            Ok(Layer {
                context: Some([
                    tensors.take_dense(&format!("{message}.0"), f, f, true)?,
                    tensors.take_dense(&format!("{message}.1"), f, 3 * f, true)?,
                ]),
                update: Update::Mixing {
                    channel_mix: tensors.take_dense(&format!("{mixing}.mu_channel_mix"), f, 2 * f, false)?,
                    context: [
                        tensors.take_dense(&format!("{mixing}.intraatomic_context_net.0"), 2 * f, f, true)?,
                        tensors.take_dense(&format!("{mixing}.intraatomic_context_net.1"), f, 3 * f, true)?,
                    ],
                    epsilon: spec.norm_epsilon,
                },
            })
        })
        .collect::<Result<_>>()?;
    Ok(Parts {
        embedding: embedding(tensors, "representation.embedding.weight", f)?,
        filter,
        layers,
        readout: readout(spec, tensors, |k| format!("output_modules.0.outnet.{k}"))?,
    })
}

fn student(spec: &Spec, tensors: &mut Tensors) -> Result<Parts> {
    let f = spec.features;
    let k = spec.radial_count;
    let centers = tensors.take("rbf.centers", &[k])?;
    let widths = tensors.take_widths("rbf.widths", k)?;
    let maps = (0..spec.interactions)
        .map(|l| {
            let name = format!("interactions.{l}.message.rbf_to_scalar");
            let hidden = tensors.take_dense(&format!("{name}.0"), k, f, true)?;
            let mut output = tensors.take_dense(&format!("{name}.2"), f, 3 * f, true)?;
            // The file's thirds are (scalars, neighbour's vectors, directions); ours (scalars, directions, vectors).
            output.weight[f * f..].rotate_left(f * f);
            output.bias[f..].rotate_left(f);
            Ok(RadialMap::with_hidden_layer(&hidden, &output))
        })
        .collect::<Result<_>>()?;
    let unit = spec.length_unit;
    let filter = RadialFilter::new(
        spec.cutoff * unit,
        centers.iter().map(|m| m * unit).collect(),
        // exp(−(d − m)²/w²)
        widths.iter().map(|w| 1.0 / (w * unit).powi(2)).collect(),
        maps,
    );
    let layers = (0..spec.interactions)
        .map(|l| {
            let update = format!("interactions.{l}.update");
            let mixing = if l + 1 < spec.interactions {
                Some(Matrix3::from_row_slice(&tensors.take(&format!("{update}.mixing_matrix"), &[3, 3])?))
            } else {
                None
            };
            Ok(Layer {
                context: None,
                update: Update::Cartesian {
                    context: [
                        tensors.take_dense(&format!("{update}.update_mlp.0"), 2 * f, f, true)?,
                        tensors.take_dense(&format!("{update}.update_mlp.2"), f, 3 * f, true)?,
                    ],
                    mixing,
                },
            })
        })
        .collect::<Result<_>>()?;
    Ok(Parts {
        embedding: embedding(tensors, "embedding.weight", f)?,
        filter,
        layers,
        readout: readout(spec, tensors, |k| format!("energy_head.{}", 2 * k))?,
    })
}
