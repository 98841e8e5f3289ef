//! Huffman codes of a baseline scan (ITU-T T.81, annexes C and F.2.2): one look-up tells how long a symbol is with the bits of its
//! value, so that what the next look-up waits for is one load and one shift.

use super::bits::Bits;

/// Codes of up to so many bits are looked up at once; longer ones, which are rare, are searched for.
const LOOK: u32 = 10;

/// What an end of block advances by: past every coefficient, and further than any run could.
pub const END: usize = 128;

/// One symbol. From the lowest byte up: bits in all, bits of the code, bits of the value, coefficients to advance by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symbol(u32);

impl Symbol {
    fn new(code_bits: u32, value_bits: u32, advance: usize) -> Self {
        Self((code_bits + value_bits) | code_bits << 8 | value_bits << 16 | (advance as u32) << 24)
    }

    #[inline(always)]
    pub fn bits(self) -> u32 {
        self.0 // Shifts take the lowest six bits alone.
    }

    #[inline(always)]
    pub fn code_bits(self) -> u32 {
        self.0 >> 8
    }

    #[inline(always)]
    pub fn value_bits(self) -> u32 {
        self.0 >> 16 & 0xf
    }

    #[inline(always)]
    pub fn advance(self) -> usize {
        (self.0 >> 24) as usize
    }

    /// No code of up to [`LOOK`] bits.
    #[inline(always)]
    fn is_long(self) -> bool {
        self.0 == 0
    }
}

/// The codes of one table, for differences of DC or for AC coefficients.
pub struct Codes {
    short: Box<[Symbol; 1 << LOOK]>,
    /// As many whole symbols as the bits hold, with their values: bits, and coefficients to advance by; [`END`] comes last.
    several: Box<[(u8, u8); 1 << LOOK]>,
    /// Per length from `LOOK + 1` on: one past the last code, left-aligned in 16 bits, and where its symbols begin.
    long: [(u32, i32); 16 - LOOK as usize],
    symbols: Vec<Symbol>,
}

impl Codes {
    /// From the number of codes of each length and their symbols; `None` for more codes than there can be, and for values that
    /// 8-bit pictures cannot have.
    pub fn new(counts: &[u8; 16], values: &[u8], is_dc: bool) -> Option<Self> {
        let mut short = Box::new([Symbol::default(); 1 << LOOK]);
        let mut long = [(0, 0); 16 - LOOK as usize];
        let mut symbols = Vec::with_capacity(values.len());
        let (mut code, mut values) = (0_u32, values.iter());
        for length in 1..=16_u32 {
            let count = u32::from(counts[length as usize - 1]);
            if code + count > 1 << length {
                return None;
            }
            if length > LOOK {
                let first = symbols.len() as i32 - code as i32;
                long[(length - LOOK) as usize - 1] = ((code + count) << (16 - length), first);
            }
            for _ in 0..count {
                let symbol = symbol(*values.next()?, length, is_dc)?;
                symbols.push(symbol);
                if length <= LOOK {
                    let spread = LOOK - length;
                    short[(code << spread) as usize..((code + 1) << spread) as usize].fill(symbol);
                }
                code += 1;
            }
            code <<= 1;
        }
        let several = Box::new(std::array::from_fn(|word| several(&short, word)));
        Some(Self { short, several, long, symbols })
    }

    /// The symbol that `bits` begins with; `None` if it is none.
    #[inline(always)]
    pub fn look_up(&self, bits: &Bits) -> Option<Symbol> {
        let symbol = self.short[bits.peek::<LOOK>()];
        if symbol.is_long() { self.search(bits.peek::<16>() as u32) } else { Some(symbol) }
    }

    /// What to pass over, if nobody wants to know what it is: how many bits, and by how many coefficients they advance. No bits
    /// if the next symbol alone has too many.
    #[inline(always)]
    pub fn several(&self, bits: &Bits) -> (u32, usize) {
        let (bits, advance) = self.several[bits.peek::<LOOK>()];
        (u32::from(bits), usize::from(advance))
    }

    #[cold]
    fn search(&self, word: u32) -> Option<Symbol> {
        let lengths = LOOK + 1..=16;
        let (length, (_, first)) = lengths.zip(self.long).find(|&(_, (end, _))| word < end)?;
        let index = i64::from(first) + i64::from(word >> (16 - length));
        // A word below the codes of this length is one that no shorter length took: there is none.
        self.symbols.get(usize::try_from(index).ok()?).copied().filter(|symbol| symbol.code_bits() & 0xff == length)
    }
}

fn several(short: &[Symbol; 1 << LOOK], word: usize) -> (u8, u8) {
    let (mut taken, mut advance) = (0, 0);
    while advance < END {
        let symbol = short[word << taken & ((1 << LOOK) - 1)];
        let bits = symbol.bits() & 0xff;
        if symbol.is_long() || taken + bits > LOOK || symbol.advance() == 0 {
            break;
        }
        taken += bits;
        advance += symbol.advance();
    }
    (taken as u8, advance as u8)
}

fn symbol(value: u8, length: u32, is_dc: bool) -> Option<Symbol> {
    let (run, size) = (usize::from(value >> 4), u32::from(value & 0xf));
    match (is_dc, run, size) {
        (true, 0, 0..=11) => Some(Symbol::new(length, size, 0)),
        (true, ..) => None,
        (false, 0, 0) => Some(Symbol::new(length, 0, END)),
        (false, 15, 0) => Some(Symbol::new(length, 0, 16)),
        (false, _, 1..=10) => Some(Symbol::new(length, size, run + 1)),
        (false, ..) => None,
    }
}
