//! The forms that R can have, behind one set of operations: whole or in blocks ([`Blocks`]), or of low rank ([`LowRank`]).

use tch::{Device, Kind, Tensor};

use super::blocks::Blocks;
use super::low_rank::LowRank;
use super::options::DecorOptions;
use super::{NnError, NnResult};
use crate::random::{Key, Stream};

/// One step of the update: `R ← R − η [(1−κ) C + κ diag(v − 1)] R`.
#[derive(Clone, Copy)]
pub struct Rule<'a> {
    /// η
    pub rate: f64,
    /// κ
    pub kappa: f64,
    /// Rows of R stop here; 0 is no bound.
    pub max_norm: f64,
    /// A direction (unit length) that no input varies in: R does not move there. Shapes: `[d]`.
    pub unseen: Option<&'a Tensor>,
}

/// R, in the form that its options ask for.
pub enum Factor {
    Blocks(Blocks),
    LowRank(LowRank),
}

/// Rounds of power iteration for ‖R‖₂: enough for two digits.
const NORM_ROUNDS: usize = 30;

impl Factor {
    /// R = I for a layer of `inputs` per group.
    ///
    /// Errors: [`NnError::Config`] for a block width that does not divide the inputs, or a low rank for several groups.
    pub fn identity(
        name: &str,
        (inputs, outputs, groups): (i64, i64, i64),
        options: &DecorOptions,
        kind: Kind,
        device: Device,
    ) -> NnResult<Self> {
        if options.rank == 0 {
            let width = options.block_width(name, inputs, outputs / groups)?;
            return Ok(Self::Blocks(Blocks::identity(groups * inputs, width, kind, device)?));
        }
        if groups > 1 {
            let message = format!("rank: {name} has {groups} groups, each with an R of its own; leave out rank");
            return Err(NnError::Config(message));
        }
        Ok(Self::LowRank(LowRank::identity(name, inputs, options.rank, kind, device)?))
    }

    /// A checkpoint's `[d, d]` or `[k, b, b]` for a layer of `inputs` per group; no block spans two groups.
    ///
    /// Errors: [`NnError::Shape`] if it does not fit.
    pub fn from_matrix(name: &str, r: Tensor, inputs: i64, groups: i64) -> NnResult<Self> {
        let size = r.size();
        let fits = match size[..] {
            [a, b] => groups == 1 && a == inputs && b == inputs,
            [k, a, b] => a == b && k % groups == 0 && k * a == inputs * groups,
            _ => false,
        };
        if !fits {
            let expected = if groups == 1 { vec![inputs, inputs] } else { vec![groups, inputs, inputs] };
            return Err(NnError::Shape { name: name.to_owned(), expected, found: size });
        }
        Ok(Self::Blocks(Blocks::from_matrix(r)))
    }

    /// A checkpoint's U and V, named `<name>_u` and `<name>_v`, for a layer of `inputs`.
    ///
    /// Errors: [`NnError::Shape`] if they do not fit.
    pub fn from_low_rank(name: &str, u: Tensor, v: Tensor, inputs: i64) -> NnResult<Self> {
        let misfit =
            |ending, expected, found| Err(NnError::Shape { name: format!("{name}_{ending}"), expected, found });
        if u.dim() != 2 || u.size()[0] != inputs {
            return misfit("u", vec![inputs, -1], u.size());
        }
        if v.size() != u.size() {
            return misfit("v", u.size(), v.size());
        }
        Ok(Self::LowRank(LowRank { u, v }))
    }

    /// `z = x Rᵀ`. Shapes: `[n, d]` → `[n, d]`.
    pub fn apply(&self, rows: &Tensor) -> NnResult<Tensor> {
        match self {
            Self::Blocks(blocks) => blocks.apply(rows),
            Self::LowRank(low) => low.apply(rows),
        }
    }

    /// `z = x Rᵀ` for figures, inputs of different blocks apart. Shapes: `[n, d]` → `[n, d]` or `[k, n, b]`.
    pub fn rows_by_block(&self, rows: &Tensor) -> NnResult<Tensor> {
        match self {
            Self::Blocks(blocks) => blocks.rows_by_block(rows),
            Self::LowRank(low) => low.apply(rows),
        }
    }

    /// `W R`. Shapes: `[o, d]` → `[o, d]`, d of one group.
    pub fn compose(&self, weight: &Tensor, groups: i64) -> NnResult<Tensor> {
        match self {
            Self::Blocks(blocks) => blocks.compose(weight, groups),
            Self::LowRank(low) => low.compose(weight),
        }
    }

    /// `dA Rᵀ`. Shapes: `[o, d]` → `[o, d]`, d of one group.
    pub fn fold(&self, gradient: &Tensor, groups: i64) -> NnResult<Tensor> {
        match self {
            Self::Blocks(blocks) => blocks.fold(gradient, groups),
            Self::LowRank(low) => low.fold(gradient),
        }
    }

    /// Each group's R as one matrix. Shapes: `[groups, d, d]`, d of one group.
    pub fn dense(&self, groups: i64) -> NnResult<Tensor> {
        match self {
            Self::Blocks(blocks) => blocks.dense(groups),
            Self::LowRank(low) => Ok(low.dense()?.f_unsqueeze(0)?),
        }
    }

    /// One step from n sampled raw rows. Shapes: `[n, d]`.
    pub fn update(&mut self, rows: &Tensor, rule: Rule) -> NnResult<()> {
        match self {
            Self::Blocks(blocks) => blocks.update(rows, rule),
            Self::LowRank(low) => low.update(rows, rule),
        }
    }

    /// What a checkpoint holds: the ending of the name, and the tensor.
    pub fn tensors(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Self::Blocks(blocks) => vec![("decorrelation", blocks.matrix())],
            Self::LowRank(low) => vec![("decorrelation_u", &low.u), ("decorrelation_v", &low.v)],
        }
    }

    /// The length of the longest row, left on the device.
    pub fn longest_row(&self) -> NnResult<Tensor> {
        let squares = match self {
            Self::Blocks(blocks) => {
                let r = blocks.matrix();
                r.f_square()?.f_sum_dim_intlist(-1i64, false, r.kind())?
            }
            Self::LowRank(low) => low.squared_lengths()?,
        };
        Ok(squares.f_max()?.f_sqrt()?)
    }

    /// ‖R‖₂, the largest of its blocks, left on the device.
    pub fn spectral_norm(&self) -> NnResult<Tensor> {
        let dense;
        let r = match self {
            Self::Blocks(blocks) => blocks.matrix(),
            Self::LowRank(low) => {
                dense = low.dense()?;
                &dense
            }
        };
        let (rt, mut y) = (r.f_transpose(-2, -1)?, start(r)?);
        for _ in 0..NORM_ROUNDS {
            y = unit(&rt.f_matmul(&r.f_matmul(&y)?)?)?;
        }
        Ok(length(&r.f_matmul(&y)?)?.f_max()?)
    }

    /// The width of R, or of its blocks.
    pub fn width(&self) -> i64 {
        match self {
            Self::Blocks(blocks) => blocks.width(),
            Self::LowRank(low) => low.u.size()[0],
        }
    }

    /// How many values it holds.
    pub fn numel(&self) -> i64 {
        self.tensors().iter().map(|(_, tensor)| tensor.numel() as i64).sum()
    }

    /// Multiply-adds of an update from `rows` rows.
    pub fn update_cost(&self, rows: i64) -> i64 {
        match self {
            Self::Blocks(blocks) => blocks.update_cost(rows),
            Self::LowRank(low) => low.update_cost(rows),
        }
    }

    /// Multiply-adds of `z = x Rᵀ`, per row.
    pub fn row_cost(&self) -> i64 {
        match self {
            Self::Blocks(blocks) => blocks.row_cost(),
            Self::LowRank(low) => low.row_cost(),
        }
    }
}

/// The largest eigenvalue, by size, of `(1−κ) C + κ diag(v)` with `C = ZᵀZ/n − diag(v)`, the largest of its blocks; left on the
/// device. An η above `2/λmax` overshoots. Shapes: `z [n, d]` or `[k, n, b]`.
pub fn largest_eigenvalue(z: &Tensor, kappa: f64) -> NnResult<Tensor> {
    const ROUNDS: usize = 12; // The largest stands far out wherever it matters.
    let share = (1.0 - kappa) / z.size()[z.dim() - 2] as f64;
    let (zt, variance) = (z.f_transpose(-2, -1)?, z.f_square()?.f_mean_dim(-2i64, false, z.kind())?.f_unsqueeze(-1)?);
    let own = variance.f_mul_scalar(2.0 * kappa - 1.0)?;
    let times = |y: &Tensor| -> NnResult<Tensor> {
        Ok(zt.f_matmul(&z.f_matmul(y)?)?.f_mul_scalar(share)?.f_add(&own.f_mul(y)?)?)
    };
    let mut y = start(&zt)?;
    for _ in 0..ROUNDS {
        y = unit(&times(&y)?)?;
    }
    Ok(length(&times(&y)?)?.f_max()?)
}

/// A fixed random vector for each matrix of `like [.., b, _]`. Shapes: `[.., b, 1]`.
fn start(like: &Tensor) -> NnResult<Tensor> {
    let mut size = like.size();
    let columns = size.len() - 1;
    size[columns] = 1;
    let mut rng = Key::new(0, Stream::Decor).rng();
    let drawn: Vec<f64> = (0..size.iter().product()).map(|_| rng.normal()).collect();
    let y = Tensor::f_from_slice(&drawn)?.f_reshape(&size)?.f_to_kind(like.kind())?.f_to_device(like.device())?;
    unit(&y)
}

fn length(y: &Tensor) -> NnResult<Tensor> {
    Ok(y.f_square()?.f_sum_dim_intlist(-2i64, true, y.kind())?.f_sqrt()?)
}

fn unit(y: &Tensor) -> NnResult<Tensor> {
    Ok(y.f_div(&length(y)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?)
}
