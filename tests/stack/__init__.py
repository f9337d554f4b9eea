"""Tests of the program under Pulumi's mocks."""
