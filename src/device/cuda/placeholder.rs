//! Stands in until kernels/ptx is there.
pub(super) const PTX: &str = ".version 7.8\n.target sm_75\n.address_size 64\n\
.visible .entry forebay_destuff() { ret; }\n.visible .entry forebay_entropy() { ret; }\n\
.visible .entry forebay_idct() { ret; }\n.visible .entry forebay_taps() { ret; }\n\
.visible .entry forebay_resize_u8() { ret; }\n.visible .entry forebay_resize_f16() { ret; }\n\
.visible .entry forebay_resize_bf16() { ret; }\n.visible .entry forebay_resize_f32() { ret; }\n";
