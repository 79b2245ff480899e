//! The specification.

pub fn h2v1(row: &[u8], count: usize, out: &mut [u8]) {
    for (window, out) in row.windows(3).zip(out.chunks_exact_mut(2)).take(count) {
        let [left, here, right] = [window[0], window[1], window[2]].map(u16::from);
        out[0] = ((3 * here + left + 1) >> 2) as u8;
        out[1] = ((3 * here + right + 2) >> 2) as u8;
    }
}

pub fn h1v2(near: &[u8], far: &[u8], bias: u8, count: usize, out: &mut [u8]) {
    for ((out, &near), &far) in out.iter_mut().zip(near).zip(far).take(count) {
        *out = ((3 * u16::from(near) + u16::from(far) + u16::from(bias)) >> 2) as u8;
    }
}

pub fn h2v2(near: &[u8], far: &[u8], count: usize, out: &mut [u8]) {
    for ((near, far), out) in near.windows(3).zip(far.windows(3)).zip(out.chunks_exact_mut(2)).take(count) {
        let [left, here, right] = [0, 1, 2].map(|i| 3 * u16::from(near[i]) + u16::from(far[i]));
        out[0] = ((3 * here + left + 8) >> 4) as u8;
        out[1] = ((3 * here + right + 7) >> 4) as u8;
    }
}
