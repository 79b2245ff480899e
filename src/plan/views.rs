//! The views of a sample: the tensors that are made of it, and what has to be decoded for them.

use super::{Augment, Orientation, SampleKey, SamplePlan};
use crate::error::{Error, Result};
use crate::pixels::{Rect, View};

/// Views of a sample, of all groups together, at most.
pub const VIEWS_MAX: usize = 64;

/// Groups of views, in each of which all are made by one augmentation.
#[derive(Clone, Debug)]
pub(crate) struct Views {
    groups: Box<[Group]>,
    len: usize,
}

/// Views that one augmentation makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) augment: Augment,
    pub(crate) count: usize,
    /// The number of the first among the views of all groups.
    pub(crate) first: usize,
}

/// What is decoded at once for several views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passes {
    /// Views apart that share little, since decoding can start at each.
    Few,
    /// All of them: to get to one, what lies before it is decoded anyway.
    One,
}

/// The plans of all views of a sample, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plans {
    pub(crate) first: SamplePlan,
    /// Those of further views, for which a loader with one view allocates nothing.
    pub(crate) more: Vec<SamplePlan>,
}

impl Views {
    /// Of groups of so many views each.
    ///
    /// # Errors
    /// `InvalidParameter` for no view or too many, and for images of their own size beside others.
    pub(crate) fn new(groups: impl IntoIterator<Item = (Augment, usize)>) -> Result<Self> {
        let mut len = 0_usize;
        let mut made = Vec::new();
        for (augment, count) in groups {
            if count == 0 {
                return Err(Error::invalid_parameter("views", 0, "a group has at least one view"));
            }
            made.push(Group { augment, count, first: len });
            len = len.saturating_add(count);
        }
        if !(1..=VIEWS_MAX).contains(&len) {
            return Err(Error::invalid_parameter("views", len, &format!("a sample has 1 to {VIEWS_MAX} views")));
        }
        if len > 1 && made.iter().any(|group| group.augment.output_shape().is_none()) {
            let allowed = "images of their own size have one view: use a geometry that resizes for every group";
            return Err(Error::invalid_parameter("views", "of Geometry::None", allowed));
        }
        Ok(Self { groups: made.into(), len })
    }

    /// The groups.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Views of a sample.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The augmentation of each view.
    pub(crate) fn augments(&self) -> impl Iterator<Item = &Augment> {
        self.groups.iter().flat_map(|group| std::iter::repeat_n(&group.augment, group.count))
    }

    /// Whether every image keeps its own size.
    pub(crate) fn has_own_sizes(&self) -> bool {
        self.groups.iter().any(|group| group.augment.output_shape().is_none())
    }

    /// Plans a sample, of which `key` names the first view; `may_scale` says whether its decoder scales.
    ///
    /// # Errors
    /// Those of [`Augment::plan`].
    pub(crate) fn plan(
        &self,
        key: SampleKey,
        (width, height): (u32, u32),
        orientation: Orientation,
        may_scale: bool,
    ) -> Result<Plans> {
        let of = |(view, augment): (usize, &Augment)| {
            let key = SampleKey { view: SampleKey::numbered(key.view as u32, view as u32), ..key };
            let plan = augment.plan(key, width, height, orientation)?;
            Ok(if may_scale && augment.dct_scaling() { plan.scaled_down() } else { plan })
        };
        let first = of((0, &self.groups[0].augment))?;
        let more = self.augments().enumerate().skip(1).map(of).collect::<Result<_>>()?;
        Ok(Plans { first, more })
    }
}

impl Plans {
    /// Every view's.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SamplePlan> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// What is to be decoded for them: each plan's view lies in one of `windows`, the first of its scale that holds it.
    ///
    /// Two windows become one, the smallest that holds both, where that has no more pixels than the two together: then
    /// decoding it costs no more, and what they share is decoded once.
    pub(crate) fn windows(&self, passes: Passes, windows: &mut Vec<View>) {
        windows.clear();
        for plan in self.iter() {
            let mut window = plan.view();
            while let Some(near) = windows.iter().position(|other| are_near(&window, other, passes)) {
                window.region = around(&window.region, &windows.swap_remove(near).region);
            }
            windows.push(window);
        }
    }
}

/// Which of `windows` holds a view.
pub(crate) fn window_of(view: &View, windows: &[View]) -> Option<usize> {
    windows
        .iter()
        .position(|window| window.scale == view.scale && around(&window.region, &view.region) == window.region)
}

/// Whether two windows are to be one.
fn are_near(a: &View, b: &View, passes: Passes) -> bool {
    let area = |region: &Rect| u64::from(region.width) * u64::from(region.height);
    let is_cheaper = || area(&around(&a.region, &b.region)) <= area(&a.region) + area(&b.region);
    a.scale == b.scale && (passes == Passes::One || is_cheaper())
}

/// The smallest rectangle that holds both.
fn around(a: &Rect, b: &Rect) -> Rect {
    let (x, y) = (a.x.min(b.x), a.y.min(b.y));
    let (right, bottom) = ((a.x + a.width).max(b.x + b.width), (a.y + a.height).max(b.y + b.height));
    Rect { x, y, width: right - x, height: bottom - y }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Geometry, Size};

    fn crops(scale: [f64; 2], count: usize) -> (Augment, usize) {
        let geometry = Geometry::RandomResizedCrop { size: Size::square(20), scale, ratio: [0.75, 1.4] };
        (Augment::builder(geometry).dct_scaling(true).build().unwrap(), count)
    }

    #[test]
    fn windows_that_cost_less_together_are_one() {
        let rect = |x, y, width, height| View::from(Rect { x, y, width, height });
        let near = |a: View, b: View| are_near(&a, &b, Passes::Few);
        // Side by side, nested, and overlapping by more than the corners that are left.
        assert!(near(rect(0, 0, 10, 10), rect(10, 0, 5, 10)));
        assert!(near(rect(0, 0, 10, 10), rect(2, 3, 4, 5)));
        assert!(near(rect(0, 0, 10, 10), rect(3, 3, 10, 10)));
        assert!(!near(rect(0, 0, 10, 10), rect(5, 5, 10, 10)));
        assert!(!near(rect(0, 0, 10, 10), rect(11, 0, 5, 10)));
        assert!(are_near(&rect(0, 0, 1, 1), &rect(99, 99, 1, 1), Passes::One));
        let half = View { scale: crate::Scale::Half, ..rect(0, 0, 10, 10) };
        assert!(!are_near(&half, &rect(0, 0, 10, 10), Passes::One));
    }

    proptest! {
        /// Every view lies in a window of its scale; no two windows are to be one; together they have no more pixels.
        #[test]
        fn every_view_lies_in_a_window(
            sample: u64,
            (width, height) in (1_u32..3000, 1_u32..3000),
            (large, small) in (1_usize..5, 1_usize..9),
        ) {
            let views = Views::new([crops([0.3, 1.0], large), crops([0.001, 0.1], small)]).unwrap();
            let key = SampleKey { sample, ..SampleKey::default() };
            let plans = views.plan(key, (width, height), Orientation::AS_STORED, true).unwrap();
            prop_assert_eq!(plans.iter().count(), large + small);
            let mut windows = vec![];
            for passes in [Passes::Few, Passes::One] {
                plans.windows(passes, &mut windows);
                for plan in plans.iter() {
                    prop_assert!(window_of(&plan.view(), &windows).is_some());
                }
                for (number, window) in windows.iter().enumerate() {
                    prop_assert!(window.fits(width, height));
                    prop_assert!(windows[..number].iter().all(|other| !are_near(window, other, passes)));
                }
                let area = |view: View| u64::from(view.region.width) * u64::from(view.region.height);
                let apart = plans.iter().map(|plan| area(plan.view())).sum::<u64>();
                let together = windows.iter().copied().map(area).sum::<u64>();
                prop_assert!(passes == Passes::One || together <= apart);
            }
        }

        /// A view has the plan of an augmentation alone with its key, whatever stands beside it.
        #[test]
        fn a_views_plan_is_that_of_its_key(sample: u64, draw: u32) {
            let (large, small) = (crops([0.3, 1.0], 2), crops([0.05, 0.3], 3));
            let views = Views::new([large, small]).unwrap();
            let key = SampleKey { sample, view: draw.into(), ..SampleKey::default() };
            let plans = views.plan(key, (640, 480), Orientation::AS_STORED, false).unwrap();
            for (number, plan) in plans.iter().enumerate() {
                let augment = if number < 2 { large.0 } else { small.0 };
                let key = SampleKey { view: SampleKey::numbered(draw, number as u32), ..key };
                prop_assert_eq!(*plan, augment.plan(key, 640, 480, Orientation::AS_STORED).unwrap());
                prop_assert!(plans.iter().filter(|other| *other == plan).count() == 1);
            }
        }
    }
}
