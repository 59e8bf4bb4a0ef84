"""What a shop's application does at checkout, in the words of a test; each call is a transaction of its own."""

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError


@dataclass
class Checkout:
    """Calls the checkout functions on a connection of the engine, for customer 'ann' of merchant 'm1' unless named."""

    engine: Engine

    def call(self, function: str, **values: Any) -> Any:
        """Call `loyalty.<function>` with named arguments and return its row."""
        arguments = ", ".join(f"p_{name} => :{name}" for name in values)
        with self.engine.begin() as conn:
            return conn.execute(text(f"SELECT * FROM loyalty.{function}({arguments})"), values).one()

    def reserve(self, order: str, points: int, customer: str = "ann", *, merchant: str = "m1", **more: Any) -> Any:
        return self.call(
            "reserve_points", merchant_id=merchant, customer_id=customer, order_id=order, points=points, **more
        )

    def redeem(self, order: str, points: int, customer: str = "ann", *, merchant: str = "m1", **more: Any) -> Any:
        return self.call(
            "redeem_points", merchant_id=merchant, customer_id=customer, order_id=order, points=points, **more
        )

    def capture(self, order: str, *, merchant: str = "m1") -> Any:
        return self.call("capture_points", merchant_id=merchant, order_id=order)

    def release(self, order: str, *, merchant: str = "m1") -> Any:
        return self.call("release_points", merchant_id=merchant, order_id=order)

    def update(self, order: str, earned: int, redeemed: int, customer: str = "ann", **more: Any) -> Any:
        return self.call(
            "update_customer_loyalty_points_atomic",
            customer_id=customer,
            points_earned=earned,
            points_redeemed=redeemed,
            order_id=order,
            **more,
        )

    def spendable(self, customer: str = "ann", *, merchant: str = "m1", **more: Any) -> int:
        return self.call("spendable_points", merchant_id=merchant, customer_id=customer, **more)[0]

    def redeemable(self, points: int | None, customer: str = "ann", *, merchant: str = "m1", **more: Any) -> int:
        return self.call("redeemable_points", merchant_id=merchant, customer_id=customer, points=points, **more)[0]

    def points_to_earn(self, amount: str, *, merchant: str = "m1", **more: Any) -> int:
        return self.call("calculate_points_to_earn", merchant_id=merchant, amount=amount, **more)[0]

    def enroll(self, customer: str = "ann", *, merchant: str = "m1") -> Any:
        return self.call("enroll_customer", merchant_id=merchant, customer_id=customer)

    def refused(self, code: str, action: str, *arguments: Any, **more: Any) -> str:
        """Call `action` of this class, which must fail with the SQLSTATE `code`; return the error's text."""
        with pytest.raises(DBAPIError) as caught:
            getattr(self, action)(*arguments, **more)
        assert getattr(caught.value.orig, "sqlstate", None) == code, caught.value
        return str(caught.value.orig)
