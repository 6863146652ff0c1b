//! epoll's ready masks in eight bits, as a kqueue's books keep them.
//!
//! | bits | what |
//! | --- | --- |
//! | 0–4 | EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLERR, EPOLLHUP, as epoll has them |
//! | 5 | EPOLLRDHUP |
//! | 6, 7 | EPOLLONESHOT, EPOLLET, of what epoll is asked for |
//!
//! The other bits of epoll's are neither asked for nor looked at.

use crate::sys::epoll::{ERR, ET, HUP, IN, ONESHOT, OUT, PRI, RDHUP};

const LOW: u32 = IN | PRI | OUT | ERR | HUP;

/// The eight bits.
pub(super) fn pack(mask: u32) -> u8 {
    (mask & LOW | (mask & RDHUP) >> 8 | (mask & (ONESHOT | ET)) >> 24) as u8
}

/// epoll's mask.
pub(super) fn unpack(packed: u8) -> u32 {
    let packed = u32::from(packed);
    packed & LOW | packed << 8 & RDHUP | packed << 24 & (ONESHOT | ET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mask_that_is_used_comes_back() {
        let bits = [IN, PRI, OUT, ERR, HUP, RDHUP, ONESHOT, ET];
        for set in 0..1_u32 << bits.len() {
            let mask = (0..bits.len()).filter(|at| set & 1 << at != 0).fold(0, |mask, at| mask | bits[at]);
            assert_eq!(unpack(pack(mask)), mask);
        }
    }

    #[test]
    fn what_a_report_tells_fits_six_bits() {
        assert_eq!(pack(LOW | RDHUP) & !0x3f, 0);
        assert_eq!(pack(!(LOW | RDHUP | ONESHOT | ET)), 0);
    }
}
