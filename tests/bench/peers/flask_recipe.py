"""Flask-SQLAlchemy with the get_or_create recipe that goes round: no unique constraint.

The recipe's fault is kept: the isolation level is set once, and ends with the first attempt.
"""

import os
from datetime import datetime
from typing import Any

from flask import Flask, abort, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import BigInteger, DateTime, FetchedValue, Text, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ATTEMPTS = 5


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(
    model_class=Base,
    # With the default, another SELECT of the row would follow each commit.
    session_options={"expire_on_commit": False},
    # Each of the worker's threads gets a connection.
    engine_options={"pool_size": 16, "max_overflow": 0},
)
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"].replace(
    "postgresql:", "postgresql+psycopg2:"
)
db.init_app(app)


class Employee(db.Model):
    __tablename__ = "employees"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    department_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=FetchedValue()
    )


def get_or_create(model: Any, **key: Any) -> tuple[Any, bool]:
    """Return the row of a key and whether it is new."""
    db.session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            row = db.session.execute(db.select(model).filter_by(**key)).scalar_one_or_none()
            if row is not None:
                return row, False
            row = model(**key)
            db.session.add(row)
            db.session.commit()
            return row, True
        except DBAPIError:
            db.session.rollback()
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


@app.post("/employees")
def create() -> tuple[dict[str, Any], int]:
    body = request.get_json()
    name, department_id = body.get("name"), body.get("department_id")
    if not (isinstance(name, str) and 0 < len(name) <= 255 and isinstance(department_id, int)):
        abort(422)
    employee, created = get_or_create(Employee, name=name, department_id=department_id)
    return {
        "id": employee.id,
        "department_id": employee.department_id,
        "name": employee.name,
        "created_at": employee.created_at.isoformat(),
    }, 201 if created else 200
