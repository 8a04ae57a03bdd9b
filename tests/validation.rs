//! The judges of validation/organic.py are judged themselves: what they find in cases whose answers are known.

mod common;

#[test]
fn the_reduction_of_organic_runs() {
    common::run_python("check_validation.py", &[]);
}
