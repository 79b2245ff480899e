//! A contact sheet of a data set that datagen makes.

use std::path::Path;

use forebay::decode::Decoder;
use forebay::{Limits, Rect, Result};

use super::recipe::Recipe;
use crate::picture::Interleaved;
use crate::sheet::{self, Tile};

const TILES: u64 = 24;

/// Shows samples spread evenly over the data set. They are made anew, which is as quick as reading them
/// back and the same for every layout.
pub fn write(path: &Path, recipe: &Recipe) -> Result<()> {
    let count = recipe.len().min(TILES);
    let tiles: Vec<Tile> = (0..count).map(|i| tile(recipe, i * recipe.len() / count)).collect::<Result<_>>()?;
    sheet::write(path, &tiles).map(drop)
}

fn tile(recipe: &Recipe, number: u64) -> Result<Tile> {
    let sample = recipe.make(number);
    let mut decoder = Decoder::new(Limits::default());
    let info = decoder.inspect(&sample.jpeg)?;
    let whole = Rect::whole(info.width, info.height);
    let mut rows = Interleaved::new(whole);
    decoder.decode(&sample.jpeg, &info, whole, &mut rows)?;

    let (class, name) = sample.key.split_once('/').unwrap_or(("", &sample.key));
    let title = format!("{} {class}", sample.label);
    Ok(Tile::thumbnail(rows.pixels, info.width, info.height, title, name.to_owned()))
}
