# Slicer writes a description file of the extension; this one holds one NAME=value a line.
foreach(field HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${field}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${field} is missing")
  endif()
  file(APPEND ${CMAKE_BINARY_DIR}/description.txt "${field}=${EXTENSION_${field}}\n")
endforeach()
