//! The coefficients of one block (ITU-T T.81, F.2.2), multiplied by their divisors; or past them, if nobody needs them.

use super::bits::Bits;
use super::header::Component;
use super::huffman::{END, Symbol};

/// Coefficients times divisors: index `8 · v + u` for frequency `u` along x and `v` along y.
pub type Block = [i16; 64];

/// Reads a block into `block`, which must be all zero, and answers the last place in zigzag order that may not be zero; `dc` is the
/// DC value of the block before. `None` for a code that does not exist or more than 64 coefficients.
///
/// Not inlined: within the loop over blocks there are too few registers for it.
#[inline(never)]
pub fn read(all: &mut Bits, component: &Component, dc: &mut i32, block: &mut Block) -> Option<usize> {
    let mut bits = *all;
    let last = read_from(&mut bits, component, dc, block);
    *all = bits;
    last
}

#[inline(always)]
fn read_from(bits: &mut Bits, component: &Component, dc: &mut i32, block: &mut Block) -> Option<usize> {
    read_dc(bits, component, dc)?;
    block[0] = dc.wrapping_mul(i32::from(component.quant[0].0)) as i16;
    let (mut at, mut last) = (0, 0);
    // A symbol with its value takes at most 27 bits, so that one refill does for two.
    loop {
        for refill in [false, true] {
            if refill {
                bits.refill();
            }
            let symbol = component.ac.look_up(bits)?;
            let value = value(bits.word(), symbol);
            bits.take(symbol.bits());
            at += symbol.advance();
            if let Some(&(divisor, place)) = component.quant.get(at) {
                block[usize::from(place & 63)] = (value as i16).wrapping_mul(divisor);
                last = at;
            }
            if at >= 63 {
                return (at == 63 || at >= END).then_some(last);
            }
        }
    }
}

/// Reads past a block.
#[inline(never)]
pub fn skip(all: &mut Bits, component: &Component, dc: &mut i32) -> Option<()> {
    let mut bits = *all;
    let result = skip_from(&mut bits, component, dc);
    *all = bits;
    result
}

#[inline(always)]
fn skip_from(bits: &mut Bits, component: &Component, dc: &mut i32) -> Option<()> {
    read_dc(bits, component, dc)?;
    let mut at = 0;
    loop {
        bits.refill();
        let (several, advance) = component.ac.several(bits);
        // Behind the last coefficient, what follows is of the next block.
        if several > 0 && at + advance % END < 63 {
            bits.take(several);
            at += advance;
        } else {
            let symbol = component.ac.look_up(bits)?;
            bits.take(symbol.bits());
            at += symbol.advance();
        }
        if at >= 63 {
            return (at == 63 || at >= END).then_some(());
        }
    }
}

/// Leaves enough bits for one more symbol.
#[inline(always)]
fn read_dc(bits: &mut Bits, component: &Component, dc: &mut i32) -> Option<()> {
    bits.refill();
    let symbol = component.dc.look_up(bits)?;
    *dc = dc.wrapping_add(value(bits.word(), symbol));
    bits.take(symbol.bits());
    Some(())
}

/// The signed value behind a symbol's code: without branches, since signs and sizes are what cannot be predicted.
#[inline(always)]
fn value(word: u64, symbol: Symbol) -> i32 {
    let bits = word.wrapping_shl(symbol.code_bits());
    let size = symbol.value_bits();
    let magnitude = (bits >> 1 >> (63 - size)) as i32;
    let is_negative = !((bits as i64 >> 63) as i32); // All ones if the first bit is 0.
    magnitude + (is_negative & ((-1 << size) + 1))
}
