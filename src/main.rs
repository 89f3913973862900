//! botmesh
fn main() {}
