//! Several views of a sample from what is decoded once.

use super::host::{Resizer, Rows};
use super::taps::grow;
use crate::error::{Error, ErrorKind, Result};
use crate::pixels::{ROW_PADDING_BYTES, RowSink, View};
use crate::plan::views::window_of;
use crate::plan::{Plans, Views};

/// Makes all views of a sample; one per thread, reused for every sample.
pub(crate) struct Resizers {
    /// One a view.
    resizers: Vec<Resizer>,
    /// A decoded row of a window, red, green and blue.
    row: [Vec<u8>; 3],
    /// Empty; its memory is that of the last sample.
    takers: Vec<Taker<'static>>,
}

/// A view that takes its part of a window's rows.
struct Taker<'a> {
    rows: Rows<'a>,
    view: View,
    window: usize,
}

/// Where the rows of a window go.
pub(crate) enum FanOut<'a, 'r> {
    /// All of each to one view.
    One(&'a mut Rows<'r>),
    /// Parts of them to several.
    Many(Many<'a, 'r>),
}

/// Rows on their way to several views.
pub(crate) struct Many<'a, 'r> {
    takers: &'a mut [Taker<'r>],
    row: &'a mut [Vec<u8>; 3],
    number: usize,
    window: View,
    /// The row that is next, in pixels of the image.
    y: u32,
}

impl Resizers {
    /// For the views of a loader.
    pub(crate) fn new(views: &Views) -> Self {
        Self { resizers: views.augments().map(Resizer::new).collect(), row: Default::default(), takers: Vec::new() }
    }

    /// Bytes of memory that a sample takes at most, of which `windows` are decoded: what [`held_bytes`](Self::held_bytes)
    /// grows to at first.
    pub(crate) fn memory_bytes(plans: &Plans, windows: &[View]) -> u64 {
        let of_views = plans.iter().map(Resizer::memory_bytes).sum::<u64>();
        let widest = windows.iter().map(|window| row_bytes(window) as u64).max().unwrap_or(0);
        if plans.more.is_empty() { of_views } else { of_views + 3 * widest }
    }

    /// Bytes of memory that they hold, but for what has one size for all samples.
    pub(crate) fn held_bytes(&self) -> usize {
        let row = self.row.iter().map(Vec::capacity).sum::<usize>();
        self.resizers.iter().map(Resizer::held_bytes).sum::<usize>() + row
    }

    /// Gives it back.
    pub(crate) fn release(&mut self) {
        self.resizers.iter_mut().for_each(Resizer::release);
        self.row = Default::default();
    }

    /// Makes every view of a sample in its place of `outputs`. `decode` hands the rows of a window on, top to bottom, and
    /// is called for each of [`windows`](Plans::windows).
    ///
    /// # Errors
    /// Those of `decode` and [`Resizer::begin`]. The outputs are then not to be used.
    pub(crate) fn make<'a>(
        &'a mut self,
        plans: &Plans,
        windows: &[View],
        mut outputs: impl Iterator<Item = &'a mut [u8]>,
        mut decode: impl FnMut(View, &mut FanOut<'_, 'a>) -> Result<()>,
    ) -> Result<()> {
        let Self { resizers, row, takers } = self;
        let mut views = resizers.iter_mut().zip(plans.iter());
        let mut begin = || {
            let Some((resizer, plan)) = views.next() else { return Ok(None) };
            let output = outputs.next().ok_or_else(|| Error::new(ErrorKind::Internal, "a view has no place"))?;
            Ok::<_, Error>(Some((resizer.begin(plan, output)?, plan.view())))
        };
        if plans.more.is_empty()
            && let Some((mut rows, _)) = begin()?
        {
            decode(plans.first.view(), &mut FanOut::One(&mut rows))?;
            return rows.finish();
        }
        let mut all = recycled(std::mem::take(takers));
        while let Some((rows, view)) = begin()? {
            let window = window_of(&view, windows);
            let window = window.ok_or_else(|| Error::new(ErrorKind::Internal, "a view lies in no window"))?;
            all.push(Taker { rows, view, window });
        }
        for (number, &window) in windows.iter().enumerate() {
            let mut takers = all.iter_mut().filter(|taker| taker.window == number);
            match (takers.next(), takers.next()) {
                (Some(taker), None) if taker.view == window => decode(window, &mut FanOut::One(&mut taker.rows))?,
                _ => {
                    row.iter_mut().for_each(|plane| grow(plane, row_bytes(&window)));
                    let y = window.region.y;
                    decode(window, &mut FanOut::Many(Many { takers: &mut all, row, number, window, y }))?;
                }
            }
        }
        all.drain(..).try_for_each(|taker| taker.rows.finish())?;
        *takers = recycled(all);
        Ok(())
    }
}

/// Bytes of a plane of a row that is decoded.
fn row_bytes(window: &View) -> usize {
    window.region.width as usize + ROW_PADDING_BYTES
}

/// The memory of a vector for values of another lifetime.
fn recycled<'b>(mut takers: Vec<Taker<'_>>) -> Vec<Taker<'b>> {
    takers.clear();
    takers.into_iter().map(|_| unreachable!("it was cleared")).collect()
}

impl RowSink for FanOut<'_, '_> {
    fn row(&mut self) -> [&mut [u8]; 3] {
        match self {
            Self::One(rows) => rows.row(),
            Self::Many(many) => many.row.each_mut().map(|plane| &mut plane[..]),
        }
    }

    fn commit(&mut self) {
        match self {
            Self::One(rows) => rows.commit(),
            Self::Many(many) => many.commit(),
        }
    }
}

impl Many<'_, '_> {
    /// Copies to each view what it wants of the row: a small part of what decoding it took.
    fn commit(&mut self) {
        let y = self.y;
        self.y += 1;
        for Taker { rows, view, window } in self.takers.iter_mut() {
            let region = view.region;
            if *window != self.number || !(region.y..region.y + region.height).contains(&y) {
                continue;
            }
            let (from, len) = ((region.x - self.window.region.x) as usize, region.width as usize);
            for (to, plane) in rows.row().into_iter().zip(&*self.row) {
                to[..len].copy_from_slice(&plane[from..from + len]);
            }
            rows.commit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Augment, Geometry, Orientation, Passes, SampleKey, Size};

    /// Every view's scratch and the row between them are held at once, and are what was planned for.
    #[test]
    fn what_all_views_take_is_known_before() {
        let crops = |size, scale| {
            let geometry = Geometry::RandomResizedCrop { size: Size::square(size), scale, ratio: [0.75, 1.4] };
            Augment::builder(geometry).dct_scaling(true).build().unwrap()
        };
        for (large, small) in [(1, 0), (2, 6), (1, 3)] {
            let groups = [(crops(64, [0.3, 1.0]), large), (crops(16, [0.01, 0.2]), small)];
            let views = Views::new(groups.into_iter().filter(|(_, count)| *count > 0)).unwrap();
            let mut resizers = Resizers::new(&views);
            for (sample, passes) in (0..20).flat_map(|sample| [(sample, Passes::Few), (sample, Passes::One)]) {
                let key = SampleKey { sample, ..SampleKey::default() };
                let plans = views.plan(key, (1200, 700), Orientation::AS_STORED, true).unwrap();
                let mut windows = vec![];
                plans.windows(passes, &mut windows);
                let mut outputs: Vec<_> = plans.iter().map(|plan| vec![0; plan.output_bytes()]).collect();
                let decode = |window: View, rows: &mut FanOut<'_, '_>| {
                    (0..window.region.height).for_each(|_| rows.commit());
                    Ok(())
                };
                resizers.release();
                let before = resizers.held_bytes();
                resizers.make(&plans, &windows, outputs.iter_mut().map(|output| &mut output[..]), decode).unwrap();
                let (planned, held) = (Resizers::memory_bytes(&plans, &windows), resizers.held_bytes() as u64);
                assert_eq!(before, 0);
                assert!(held <= planned && planned < 3 * held, "{held} of {planned}, {large} and {small} views");
            }
        }
    }
}
