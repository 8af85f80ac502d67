//! Writes a grid of faces: `cargo run --release -p data --example faces -- SIDE FIRST COUNT COLUMNS SCALE FILE`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [side, first, count, columns, scale, file] = arguments.as_slice() else {
        return Err("usage: faces SIDE FIRST COUNT COLUMNS SCALE FILE".into());
    };
    let faces = data::faces::faces(side.parse()?, first.parse()?, count.parse()?);
    data::grid_png(&faces, columns.parse()?, scale.parse()?, Path::new(file))?;
    Ok(())
}
