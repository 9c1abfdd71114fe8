import pytest


@pytest.mark.django_db
def test_tables():
    from governance.models import Department

    Department.objects.create(slug="a", name="A")
    assert Department.objects.count() == 1
