//! Energy and forces of a molecule.
//!
//!     cargo run --release --example energy

use verlet::elements;
use verlet::model::Model;
use verlet::system::structure::read_structure;

fn main() -> verlet::Result<()> {
    let model = Model::load("inputs/models/ethanol-water-v2.safetensors")?;
    let ethanol = read_structure("inputs/structures/ethanol.xyz", 0)?;
    let result = verlet::backend::evaluate(&model, &ethanol)?;

    println!("{}: {:.6} eV", ethanol.formula(), result.energy);
    println!("forces in eV/Å:");
    for (&atomic_number, force) in ethanol.atomic_numbers.iter().zip(&result.forces) {
        println!("{:2} {:9.4} {:9.4} {:9.4}", elements::symbol(atomic_number), force.x, force.y, force.z);
    }
    Ok(())
}
