"""Django's get_or_create, with a unique constraint."""

import json
import os
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import models
from django.db.models.functions import Now
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST
from psycopg.conninfo import conninfo_to_dict

given = conninfo_to_dict(os.environ["DATABASE_URL"])

settings.configure(
    DEBUG=False,
    SECRET_KEY="not used",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": given["dbname"],
            "USER": given["user"],
            "HOST": given["host"],
            "PORT": given["port"],
            "CONN_MAX_AGE": None,  # each thread keeps its connection
            # The server prepares statements at their first use.
            "OPTIONS": {"server_side_binding": True, "prepare_threshold": 0},
        }
    },
)
django.setup()


class Employee(models.Model):
    id = models.BigAutoField(primary_key=True)
    department_id = models.BigIntegerField()
    name = models.TextField()
    # The default is the database's, and Django gets it back with the INSERT.
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        app_label = "bench"
        db_table = "employees"
        constraints = (
            models.UniqueConstraint(fields=["department_id", "name"], name="employees_key"),
        )


@require_POST
def create(request: HttpRequest) -> JsonResponse:
    body: dict[str, Any] = json.loads(request.body)
    name, department_id = body.get("name"), body.get("department_id")
    if not (isinstance(name, str) and 0 < len(name) <= 255 and isinstance(department_id, int)):
        return JsonResponse({"detail": "name and department_id"}, status=422)
    employee, created = Employee.objects.get_or_create(name=name, department_id=department_id)
    response = JsonResponse(
        {
            "id": employee.id,
            "department_id": employee.department_id,
            "name": employee.name,
            "created_at": employee.created_at,
        },
        status=201 if created else 200,
    )
    # CommonMiddleware sets this, too. Without it gunicorn would send the body in chunks.
    response.headers["Content-Length"] = str(len(response.content))
    return response


urlpatterns = [path("employees", create)]
app = get_wsgi_application()
