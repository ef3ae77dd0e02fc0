//! An account and its rules.

use serde::{Deserialize, Serialize};
use solewriter::{Context, Rejection};

const ALREADY_OPEN: Rejection = Rejection::new("already-open");
const NOT_OPEN: Rejection = Rejection::new("not-open");
const INVALID_AMOUNT: Rejection = Rejection::new("invalid-amount");
const INSUFFICIENT_FUNDS: Rejection = Rejection::new("insufficient-funds");

/// What an account holds; without a balance it is not open.
#[derive(Clone, Default, Deserialize, Serialize)]
pub struct Account {
    balance: Option<i64>,
}

#[derive(Deserialize, Serialize)]
pub struct Open {
    pub initial: i64,
}

#[derive(Deserialize, Serialize)]
pub struct Amount {
    pub amount: i64,
}

/// What every command answers.
#[derive(Serialize)]
pub struct Balance {
    balance: i64,
}

impl Account {
    /// What the account holds.
    pub fn balance(&self) -> i64 {
        self.balance.unwrap_or(0)
    }

    pub fn open(&mut self, open: Open, cx: &mut Context) -> Result<Balance, Rejection> {
        if self.balance.is_some() {
            return Err(ALREADY_OPEN);
        }
        if open.initial < 0 {
            return Err(INVALID_AMOUNT.detail("initial is negative"));
        }
        cx.emit("account.opened", &open);
        Ok(self.set(open.initial))
    }

    pub fn deposit(&mut self, deposit: Amount, cx: &mut Context) -> Result<Balance, Rejection> {
        let balance = self.balance.ok_or(NOT_OPEN)?;
        let after = positive(&deposit)?.checked_add(balance).ok_or(INVALID_AMOUNT)?;
        cx.emit("account.deposited", &deposit);
        Ok(self.set(after))
    }

    pub fn withdraw(&mut self, withdraw: Amount, cx: &mut Context) -> Result<Balance, Rejection> {
        let balance = self.balance.ok_or(NOT_OPEN)?;
        let amount = positive(&withdraw)?;
        if amount > balance {
            return Err(INSUFFICIENT_FUNDS.detail(format!("balance {balance} is less than {amount}")));
        }
        cx.emit("account.withdrawn", &withdraw);
        Ok(self.set(balance - amount))
    }

    fn set(&mut self, balance: i64) -> Balance {
        self.balance = Some(balance);
        Balance { balance }
    }
}

fn positive(amount: &Amount) -> Result<i64, Rejection> {
    if amount.amount > 0 { Ok(amount.amount) } else { Err(INVALID_AMOUNT.detail("amount is not positive")) }
}
