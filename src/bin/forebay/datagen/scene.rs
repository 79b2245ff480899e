//! A photo-like scene: overlapping, shaded, textured shapes of power-law sizes ("dead leaves") before a
//! background out of focus, seen through a lens and a noisy sensor.

use super::encode::Planes;
use super::random::Random;
use super::shape::{Shape, Span};
use super::texture::{SIDE, Textures};

/// What a picture shall show.
pub struct Request {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The class, which sets the colour and form of the subject in the middle.
    pub class: u32,
    /// Strength of textures and sensor noise over that of the usual photo.
    pub detail: f32,
}

/// Luma and colour differences of a matt surface in full light. Light scales all three, as it scales
/// red, green and blue.
#[derive(Clone, Copy)]
struct Colour([f32; 3]);

/// One surface that hides what was painted before it.
struct Leaf {
    shape: Shape,
    colour: Colour,
    /// Light at the centre, and its change per pixel to the right and down.
    light: [f32; 3],
    /// How much darker the edge is than the centre, as on a ball.
    dome: f32,
    texture: usize,
    texture_gain: f32,
    /// Where in the texture it looks, so that no two surfaces match.
    texture_x: usize,
    texture_y: usize,
}

/// The index of a leaf in the map of what is seen where; 0 is the background.
type LeafMap = Vec<u16>;

/// Fills the picture from back to front, then lens and sensor.
pub fn paint(request: &Request, textures: &Textures, random: &mut Random) -> Planes {
    let Request { width, height, .. } = *request;
    let palette = Palette::new(request.class, random);
    let horizon = random.between(-0.3, 0.7);
    let mut image = background(request, horizon, &palette, textures, random);
    let leaves = foreground(request, horizon, &palette, textures, random);
    let (map, shadow) = draw(&leaves, width, height, textures, random);
    for y in 0..height {
        shade_row(&mut image, y, &map, &shadow, &leaves, textures);
    }
    blur(&mut image, random.between(0.04, 0.17));
    expose(&mut image, request.detail, textures, random);
    image
}

/// The colours of one picture: few and related, as in most places.
struct Palette {
    subject: Colour,
    surroundings: [Colour; 5],
    sky: Colour,
    ground: Colour,
}

impl Palette {
    fn new(class: u32, random: &mut Random) -> Self {
        // Classes go round the hues by the golden ratio, so that any few of them differ.
        let turn = (f64::from(class) * 0.618_033_988_749_895).fract() as f32;
        let (cb, cr) = hue(turn + random.between(-0.02, 0.02));
        let saturation = random.between(14.0, 42.0);
        let subject = Colour([random.between(90.0, 185.0), saturation * cb, saturation * cr]);
        let mood = random.between(-0.08, 0.08);
        let surroundings = std::array::from_fn(|_| {
            // Earth, foliage and stone far more often than anything vivid.
            let turn = [0.36, 0.40, 0.46, 0.56, 0.61, 0.02][random.below(6)] + mood + 0.04 * random.normal();
            let (cb, cr) = hue(turn);
            let saturation = 4.0 + 20.0 * random.unit() * random.unit();
            Colour([random.between(35.0, 190.0), saturation * cb, saturation * cr])
        });
        let (cb, cr) = hue(random.between(-0.12, -0.02));
        let haze = random.between(3.0, 26.0);
        let sky = Colour([random.between(150.0, 235.0), haze * cb, haze * cr]);
        let ground = surroundings[random.below(5)];
        Self { subject, surroundings, sky, ground }
    }

    fn any(&self, random: &mut Random) -> Colour {
        let Colour([y, cb, cr]) = self.surroundings[random.below(self.surroundings.len())];
        Colour([y * random.log_normal(0.3), cb + 2.0 * random.normal(), cr + 2.0 * random.normal()])
    }
}

/// A direction in the plane of colour differences: blue at 0, red at 1/4, yellow at 1/2, green after it.
/// The square walked at even speed is as good as the circle here.
fn hue(turn: f32) -> (f32, f32) {
    let around = (turn - turn.floor()) * 4.0;
    let along = around - around.floor();
    match around as u32 {
        0 => (1.0 - along, along),
        1 => (-along, 1.0 - along),
        2 => (along - 1.0, -along),
        _ => (along, along - 1.0),
    }
}

/// Sky over ground with a few large shapes, at a quarter of the size and enlarged: out of focus.
fn background(request: &Request, horizon: f32, palette: &Palette, textures: &Textures, random: &mut Random) -> Planes {
    let (width, height) = (request.width.div_ceil(4) + 1, request.height.div_ceil(4) + 1);
    let mut small = flat(width, height);
    let horizon = horizon * height as f32;
    let softness = random.between(1.0, 0.6 * height as f32);
    for y in 0..height {
        let mix = ((y as f32 - horizon) / softness).clamp(0.0, 1.0);
        let glow = 1.0 + 0.25 * (0.5 - y as f32 / height as f32);
        for (plane, (sky, ground)) in small.planes.iter_mut().zip(palette.sky.0.into_iter().zip(palette.ground.0)) {
            plane[y * width..][..width].fill((sky + (ground - sky) * mix) * glow);
        }
    }
    let count = 20 + random.below(60);
    let largest = width.max(height) as f32 * 0.3;
    let mut leaves = vec![];
    for _ in 0..count {
        let centre = (random.between(0.0, width as f32), random.between(horizon, height as f32));
        let radius = random.radius(largest * 0.08, largest);
        leaves.push(Leaf::new(centre, radius, palette.any(random), 0.08, textures, random));
    }
    let (map, shadow) = draw(&leaves, width, height, textures, random);
    for y in 0..height {
        shade_row(&mut small, y, &map, &shadow, &leaves, textures);
    }
    blur(&mut small, 0.25);
    blur(&mut small, 0.25);
    enlarge(&small, request.width, request.height)
}

/// Leaves of every size, more of them and nearer towards the bottom, with the subject among the last.
fn foreground(
    request: &Request,
    horizon: f32,
    palette: &Palette,
    textures: &Textures,
    random: &mut Random,
) -> Vec<Leaf> {
    let (width, height) = (request.width as f32, request.height as f32);
    let side = (width * height).sqrt();
    let gain = 0.15 * request.detail;
    let count = 30 + random.below(300);
    let top = horizon.max(0.0) + random.between(-0.1, 0.2);
    let mut leaves = vec![];
    for _ in 0..count {
        // Nearer is lower and larger. Large shapes alone stand out over the horizon, as trees do.
        let depth = random.unit().sqrt();
        let scale = 0.35 + 0.65 * depth;
        let centre = (random.between(-0.05, 1.05) * width, (top + (1.05 - top) * depth) * height);
        let radius = random.radius(side * 0.016, side * 0.34) * scale;
        leaves.push(Leaf::new(centre, radius, palette.any(random), gain, textures, random));
    }
    if random.chance(0.4) {
        for _ in 0..4 + random.below(12) {
            let centre = (random.unit() * width, random.unit() * height);
            leaves.push(Leaf::new(
                centre,
                random.radius(side * 0.08, side * 0.4),
                palette.any(random),
                gain,
                textures,
                random,
            ));
        }
    }
    subject(request, palette, gain, &mut leaves, textures, random);
    for _ in 0..random.below(30) {
        let centre = (random.unit() * width, (0.75 + 0.3 * random.unit()) * height);
        let radius = random.radius(side * 0.014, side * 0.12);
        leaves.push(Leaf::new(centre, radius, palette.any(random), gain, textures, random));
    }
    leaves
}

/// A body of a few large shapes and details upon it, in the class's colour and of the class's corners.
fn subject(
    request: &Request,
    palette: &Palette,
    gain: f32,
    leaves: &mut Vec<Leaf>,
    textures: &Textures,
    random: &mut Random,
) {
    let (width, height) = (request.width as f32, request.height as f32);
    let size = width.min(height) * random.between(0.14, 0.3);
    let (x, y) = (random.between(0.3, 0.7) * width, random.between(0.35, 0.7) * height);
    let corners = request.class as usize % 5;
    let texture = request.class as usize % textures.kinds();
    let parts = 3 + random.below(4);
    for part in 0..parts {
        let reach = if part == 0 { 0.0 } else { size };
        let (dx, dy) = random.direction();
        let radius = size * if part == 0 { 1.0 } else { random.between(0.3, 0.8) };
        let Colour([luma, cb, cr]) = palette.subject;
        let colour = Colour([luma * random.log_normal(0.15), cb, cr]);
        let mut leaf = Leaf::new((x + dx * reach, y + dy * reach), radius, colour, gain, textures, random);
        leaf.texture = texture;
        if corners > 0 {
            leaf.shape = Shape::polygon(corners + 2, leaf.shape.centre(), radius, random);
        }
        leaves.push(leaf);
    }
    for _ in 0..6 + random.below(20) {
        let centre = (x + 0.6 * size * random.normal(), y + 0.6 * size * random.normal());
        let Colour([luma, cb, cr]) = palette.subject;
        let colour = Colour([luma * random.log_normal(0.6), -0.3 * cb, 0.5 * cr]);
        leaves.push(Leaf::new(centre, random.radius(size * 0.03, size * 0.25), colour, gain, textures, random));
    }
}

impl Leaf {
    fn new(
        centre: (f32, f32),
        radius: f32,
        colour: Colour,
        gain: f32,
        textures: &Textures,
        random: &mut Random,
    ) -> Self {
        let shape = match random.below(10) {
            0..6 => Shape::ellipse(centre, radius, random),
            corners => Shape::polygon(corners - 3, centre, radius, random),
        };
        let (dx, dy) = random.direction();
        let slope = random.between(0.0, 0.35) / radius;
        Self {
            shape,
            colour,
            light: [random.between(0.75, 1.15), dx * slope, dy * slope - 0.1 / radius],
            dome: if random.chance(0.6) { random.between(0.1, 0.5) } else { 0.0 },
            texture: random.below(textures.kinds()),
            texture_gain: gain * random.log_normal(0.7),
            texture_x: random.below(SIDE),
            texture_y: random.below(SIDE),
        }
    }
}

/// Which leaf is seen at every pixel, and what light its neighbours' shadows leave it.
fn draw(leaves: &[Leaf], width: usize, height: usize, textures: &Textures, random: &mut Random) -> (LeafMap, Vec<f32>) {
    let mut map = vec![0u16; width * height];
    let mut shadow = vec![1f32; width * height];
    let sun = random.direction().0;
    let shade = random.between(0.45, 0.95);
    for (number, leaf) in (1..).zip(leaves) {
        let rough = &textures.surface(1);
        let fringe = leaf.shape.fringe();
        let length = (leaf.shape.radius() * 0.12).min(12.0);
        let (across, down) = ((sun * length) as isize, (length * 0.6) as usize);
        leaf.shape.spans(width, height, |Span { y, left, right }| {
            let jitter = |side: usize| fringe * rough.at(leaf.texture_x + side, y + leaf.texture_y);
            let clip = |x: f32| (x.clamp(0.0, width as f32)) as usize;
            let (left, right) = (clip(left + jitter(0)), clip(right + jitter(97)));
            if left >= right {
                return;
            }
            if y + down < height {
                let slide = |x: usize| x.saturating_add_signed(across).min(width);
                shadow[(y + down) * width..][slide(left)..slide(right)].fill(shade);
            }
            map[y * width..][left..right].fill(number);
        });
        // Spans come top down, so a leaf's shadow may lie on rows of its own that come later.
        leaf.shape.spans(width, height, |Span { y, left, right }| {
            let clip = |x: f32| (x.clamp(0.0, width as f32)) as usize;
            if clip(left) < clip(right) {
                shadow[y * width..][clip(left)..clip(right)].fill(1.0);
            }
        });
    }
    (map, shadow)
}

/// Paints one row of what the map shows, run by run.
fn shade_row(image: &mut Planes, y: usize, map: &[u16], shadow: &[f32], leaves: &[Leaf], textures: &Textures) {
    let width = image.width;
    let row = y * width..(y + 1) * width;
    let [luma, cb, cr] = &mut image.planes;
    let planes = [&mut luma[row.clone()], &mut cb[row.clone()], &mut cr[row.clone()]];
    let (map, shadow) = (&map[row.clone()], &shadow[row]);
    let [luma, cb, cr] = planes;
    let mut x = 0;
    while x < width {
        let number = map[x];
        let end = x + map[x..].iter().take_while(|&&other| other == number).count();
        let Some(leaf) = usize::from(number).checked_sub(1).map(|index| &leaves[index]) else {
            for x in x..end {
                luma[x] *= shadow[x];
                cb[x] *= shadow[x];
                cr[x] *= shadow[x];
            }
            x = end;
            continue;
        };
        let (centre_x, centre_y) = leaf.shape.centre();
        let [level, slope_x, slope_y] = leaf.light;
        let dy = y as f32 - centre_y;
        let row_light = level + slope_y * dy;
        let bulge = leaf.dome / (leaf.shape.radius() * leaf.shape.radius());
        let row_light = row_light - bulge * dy * dy;
        let Colour([base_luma, base_cb, base_cr]) = leaf.colour;
        while x < end {
            let texture = textures.surface(leaf.texture).row_from(x + leaf.texture_x, y + leaf.texture_y);
            let run = texture.len().min(end - x);
            for (i, texel) in texture[..run].iter().enumerate() {
                let dx = (x + i) as f32 - centre_x;
                let light = (row_light + slope_x * dx - bulge * dx * dx).max(0.12) * shadow[x + i];
                let light = light * (1.0 + leaf.texture_gain * texel).max(0.1);
                luma[x + i] = base_luma * light;
                cb[x + i] = base_cb * light;
                cr[x + i] = base_cr * light;
            }
            x += run;
        }
    }
}

/// A lens: each pixel gets `weight` of the light of each of its two neighbours, in both directions.
fn blur(image: &mut Planes, weight: f32) {
    let (width, height) = (image.width, image.height);
    if width < 3 || height < 3 {
        return;
    }
    let centre = 1.0 - 2.0 * weight;
    let mut above = vec![0f32; width];
    let mut line = vec![0f32; width];
    for plane in &mut image.planes {
        above.copy_from_slice(&plane[..width]);
        for y in 0..height {
            let (upper, lower) = plane.split_at_mut((y + 1) * width);
            let row = &mut upper[y * width..];
            let below = if y + 1 < height { &lower[..width] } else { &above[..] };
            for x in 0..width {
                line[x] = centre * row[x] + weight * (above[x] + below[x]);
            }
            above.copy_from_slice(row);
            for x in 1..width - 1 {
                row[x] = centre * line[x] + weight * (line[x - 1] + line[x + 1]);
            }
            row[0] = line[0];
            row[width - 1] = line[width - 1];
        }
    }
}

/// A sensor: noise in each pixel, coarser and weaker in colour, clouds of light over the scene, and the
/// range of eight bits. Luma leaves centred on 0.
fn expose(image: &mut Planes, detail: f32, textures: &Textures, random: &mut Random) {
    let (width, height) = (image.width, image.height);
    let noise = 0.75 * detail * random.log_normal(0.5);
    let colour_noise = 0.9 * noise;
    let clouds = random.between(0.0, 0.03);
    let mut place = || (random.below(SIDE), random.below(SIDE));
    let (luma_at, cb_at, cr_at, cloud_at) = (place(), place(), place(), place());
    let [luma, cb, cr] = &mut image.planes;
    let (mut luma, mut cb, mut cr) = (luma.as_mut_slice(), cb.as_mut_slice(), cr.as_mut_slice());
    for y in 0..height {
        let mut x = 0;
        while x < width {
            let from = |at: (usize, usize), texture| -> &[f32] {
                super::texture::Texture::row_from(texture, x + at.0, y + at.1)
            };
            let (grain, cloud) = (from(luma_at, &textures.white), from(cloud_at, &textures.cloud));
            let (blue, red) = (from(cb_at, textures.surface(2)), from(cr_at, textures.surface(2)));
            let run = (width - x).min(grain.len()).min(cloud.len()).min(blue.len()).min(red.len());
            for i in 0..run {
                let light = 1.0 + clouds * cloud[i];
                luma[i] = (luma[i] * light + noise * grain[i]).clamp(0.0, 255.0) - 128.0;
                cb[i] = (cb[i] * light + colour_noise * blue[i]).clamp(-127.0, 127.0);
                cr[i] = (cr[i] * light + colour_noise * red[i]).clamp(-127.0, 127.0);
            }
            (luma, cb, cr) = (&mut luma[run..], &mut cb[run..], &mut cr[run..]);
            x += run;
        }
    }
}

fn flat(width: usize, height: usize) -> Planes {
    Planes { width, height, planes: std::array::from_fn(|_| vec![0.0; width * height]) }
}

/// Four times as large, linear in between, cut to size.
fn enlarge(small: &Planes, width: usize, height: usize) -> Planes {
    let mut large = flat(width, height);
    let mut line = vec![0f32; small.width];
    for (from, to) in small.planes.iter().zip(&mut large.planes) {
        for (y, row) in to.chunks_exact_mut(width).enumerate() {
            let (upper, weight) = (y / 4, (y % 4) as f32 / 4.0);
            let lower = (upper + 1).min(small.height - 1);
            let rows = (&from[upper * small.width..], &from[lower * small.width..]);
            for (x, value) in line.iter_mut().enumerate() {
                *value = rows.0[x] + weight * (rows.1[x] - rows.0[x]);
            }
            for (x, value) in row.iter_mut().enumerate() {
                let (left, weight) = (x / 4, (x % 4) as f32 / 4.0);
                *value = line[left] + weight * (line[left + 1] - line[left]);
            }
        }
    }
    large
}
