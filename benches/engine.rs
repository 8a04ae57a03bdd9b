//! Parts of a step on the CPU, for whoever changes them: `cargo bench`, or `cargo bench -- forces/192`.
//!
//! Criterion compares with the time before. How fast whole steps are is what `verlet bench` tells.

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;
use verlet::backend::Evaluation;
use verlet::backend::cpu::{Filters, NetworkPotential, Potential};
use verlet::bench::water;
use verlet::model::Model;
use verlet::neighbors::NeighborList;

/// Å, as a run has it by default.
const SKIN: f64 = 1.0;

fn model() -> Model {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/models/ethanol-water-v2.safetensors");
    Model::load(file).expect("the shipped model loads")
}

/// Energy and forces in float32 with tabulated filters. The list holds: nothing moves.
fn forces(criterion: &mut Criterion) {
    let model = model();
    let mut group = criterion.benchmark_group("forces");
    for atoms in [12, 51, 192, 1023] {
        let system = water(atoms).expect("water can be made");
        let mut potential = NetworkPotential::<f32>::new(&model, &system.atomic_numbers, SKIN, Filters::Table)
            .expect("the model knows water");
        let mut out = Evaluation::default();
        // A step of a thousand atoms takes a tenth of a second: samples of ever more evaluations would take minutes.
        group.sampling_mode(SamplingMode::Flat).sample_size(20).measurement_time(Duration::from_secs(4));
        group.throughput(Throughput::Elements(atoms as u64));
        group.bench_function(BenchmarkId::from_parameter(atoms), |bencher| {
            // On a thread of the pool, as a run does it.
            rayon::scope(|_| {
                bencher.iter(|| {
                    potential
                        .evaluate(black_box(&system.positions), &system.cell, &mut out)
                        .expect("water has an energy");
                    out.energy
                });
            });
        });
    }
    group.finish();
}

/// The neighbour list, made from nothing.
fn list(criterion: &mut Criterion) {
    let range = model().cutoff() + SKIN;
    let mut group = criterion.benchmark_group("list");
    for atoms in [192, 1023, 10_239] {
        let system = water(atoms).expect("water can be made");
        group.sampling_mode(SamplingMode::Flat).sample_size(20).measurement_time(Duration::from_secs(4));
        group.throughput(Throughput::Elements(atoms as u64));
        group.bench_function(BenchmarkId::from_parameter(atoms), |bencher| {
            bencher.iter(|| NeighborList::build(black_box(&system.positions), &system.cell, range).expect("it fits"));
        });
    }
    group.finish();
}

criterion_group!(benches, forces, list);
criterion_main!(benches);
