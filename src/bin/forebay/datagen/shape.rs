//! Shapes that tell, row by row, from where to where they reach.

use super::random::Random;

/// An ellipse or a convex polygon in pixels.
pub struct Shape {
    centre: (f32, f32),
    radius: f32,
    fringe: f32,
    outline: Outline,
}

enum Outline {
    /// `a dx^2 + b dx dy + c dy^2 <= 1`
    Ellipse {
        a: f32,
        b: f32,
        c: f32,
        half_height: f32,
    },
    Polygon(Vec<(f32, f32)>),
}

/// The columns `left..right` of row `y`, which lies inside the picture; the columns need not.
pub struct Span {
    /// Row.
    pub y: usize,
    /// First column.
    pub left: f32,
    /// Column after the last.
    pub right: f32,
}

impl Shape {
    /// A turned ellipse up to three times as long as wide.
    pub fn ellipse(centre: (f32, f32), radius: f32, random: &mut Random) -> Self {
        let (cosine, sine) = random.direction();
        let stretch = random.between(1.0, 1.75);
        let (long, short) = (radius * stretch, radius / stretch);
        let (p, q) = (1.0 / (long * long), 1.0 / (short * short));
        let outline = Outline::Ellipse {
            a: cosine * cosine * p + sine * sine * q,
            b: 2.0 * cosine * sine * (p - q),
            c: sine * sine * p + cosine * cosine * q,
            half_height: (sine * sine * long * long + cosine * cosine * short * short).sqrt(),
        };
        Self { centre, radius, fringe: fringe(radius, random), outline }
    }

    /// A convex polygon whose corners lie around its centre.
    pub fn polygon(corners: usize, centre: (f32, f32), radius: f32, random: &mut Random) -> Self {
        let (cosine, sine) = random.direction();
        let squash = random.between(0.55, 1.0);
        let points = unit_polygon(corners.clamp(3, 8))
            .map(|(x, y)| {
                let (x, y) = (x * radius, y * radius * squash);
                (centre.0 + cosine * x - sine * y, centre.1 + sine * x + cosine * y)
            })
            .collect();
        Self { centre, radius, fringe: fringe(radius, random), outline: Outline::Polygon(points) }
    }

    /// The middle.
    pub fn centre(&self) -> (f32, f32) {
        self.centre
    }

    /// Half its usual extent.
    pub fn radius(&self) -> f32 {
        self.radius
    }

    /// How far its edge wavers: leaves and fur have no clean outline.
    pub fn fringe(&self) -> f32 {
        self.fringe
    }

    /// Calls `each` for every row of a picture of this size that it touches, from the top.
    pub fn spans(&self, width: usize, height: usize, mut each: impl FnMut(Span)) {
        let reach = match &self.outline {
            Outline::Ellipse { half_height, .. } => *half_height,
            Outline::Polygon(_) => self.radius,
        };
        let top = (self.centre.1 - reach).max(0.0) as usize;
        let bottom = ((self.centre.1 + reach).max(-1.0) + 1.0) as usize;
        for y in top..bottom.min(height) {
            let Some((left, right)) = self.cut(y as f32 + 0.5) else { continue };
            if right > 0.0 && left < width as f32 {
                each(Span { y, left, right });
            }
        }
    }

    fn cut(&self, y: f32) -> Option<(f32, f32)> {
        match &self.outline {
            &Outline::Ellipse { a, b, c, .. } => {
                let dy = y - self.centre.1;
                let root = (b * dy) * (b * dy) - 4.0 * a * (c * dy * dy - 1.0);
                let half = (root >= 0.0).then(|| root.sqrt() / (2.0 * a))?;
                let middle = self.centre.0 - b * dy / (2.0 * a);
                Some((middle - half, middle + half))
            }
            Outline::Polygon(points) => {
                let (mut left, mut right) = (f32::MAX, f32::MIN);
                for (i, &(x0, y0)) in points.iter().enumerate() {
                    let (x1, y1) = points[(i + 1) % points.len()];
                    if (y0 <= y) != (y1 <= y) {
                        let x = x0 + (y - y0) / (y1 - y0) * (x1 - x0);
                        (left, right) = (left.min(x), right.max(x));
                    }
                }
                (left < right).then_some((left, right))
            }
        }
    }
}

fn fringe(radius: f32, random: &mut Random) -> f32 {
    if random.chance(0.5) { (radius * 0.08).min(6.0) * random.unit() } else { 0.3 }
}

/// A regular polygon by halving the square's corners or turning by a fixed step, without sines.
fn unit_polygon(corners: usize) -> impl Iterator<Item = (f32, f32)> {
    // cos and sin of a whole turn divided by 3 to 8.
    const STEPS: [(f32, f32); 6] = [
        (-0.5, 0.866_025_4),
        (0.0, 1.0),
        (0.309_017, 0.951_056_54),
        (0.5, 0.866_025_4),
        (0.623_489_8, 0.781_831_5),
        (0.707_106_77, 0.707_106_77),
    ];
    let (cosine, sine) = STEPS[corners - 3];
    std::iter::successors(Some((1.0f32, 0.0f32)), move |&(x, y)| Some((x * cosine - y * sine, x * sine + y * cosine)))
        .take(corners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_the_area_of_an_ellipse() {
        let mut random = Random::new(&[11]);
        for _ in 0..20 {
            let shape = Shape::ellipse((200.0, 200.0), 60.0, &mut random);
            let mut area = 0.0;
            shape.spans(400, 400, |span| area += span.right - span.left);
            // Stretching keeps the area: pi r^2.
            assert!((area / (std::f32::consts::PI * 3600.0) - 1.0).abs() < 0.02, "{area}");
        }
    }

    #[test]
    fn shapes_off_the_picture_give_no_rows_outside() {
        let mut random = Random::new(&[12]);
        for _ in 0..500 {
            let centre = (random.between(-90.0, 140.0), random.between(-90.0, 140.0));
            let shape = if random.chance(0.5) {
                Shape::ellipse(centre, 40.0, &mut random)
            } else {
                Shape::polygon(3 + random.below(6), centre, 40.0, &mut random)
            };
            shape.spans(50, 60, |span| assert!(span.y < 60 && span.left < 50.0 && span.right > 0.0));
        }
    }
}
