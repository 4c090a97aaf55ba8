"""The built-in synthetic chest CT: anatomy, lesions, scanner marks, rendering."""
