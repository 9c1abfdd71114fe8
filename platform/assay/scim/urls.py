"""The URLs below `/scim/v2/`."""

from __future__ import annotations

from django.urls import path, re_path

from assay.scim import discovery, views

app_name = "scim"
urlpatterns = [
    path("ServiceProviderConfig", discovery.ServiceProviderConfigView.as_view()),
    path("ResourceTypes", discovery.ResourceTypesView.as_view()),
    path("ResourceTypes/<str:name>", discovery.ResourceTypesView.as_view()),
    path("Schemas", discovery.SchemasView.as_view()),
    path("Schemas/<str:name>", discovery.SchemasView.as_view()),
    path("Users", views.UsersView.as_view()),
    path("Users/<str:person_id>", views.UserView.as_view()),
    path("Groups", views.GroupsView.as_view()),
    path("Groups/<str:group_id>", views.GroupView.as_view()),
    path("Me", discovery.UnsupportedView.as_view()),
    path("Bulk", discovery.UnsupportedView.as_view()),
    path(".search", discovery.UnsupportedView.as_view()),
    re_path("", discovery.NothingView.as_view()),
]
