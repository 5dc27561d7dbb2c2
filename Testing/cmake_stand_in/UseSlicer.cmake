# The macros of Slicer that the extension uses, reduced to what packaging depends on: which words they take, what they
# refuse, and where each file lands. Tests are written down instead of run.

function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_NAME OR NOT MODULE_SCRIPTS)
    message(FATAL_ERROR "A scripted module needs a NAME and SCRIPTS, found: ${ARGN}")
  endif()

  set(place ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR})
  if(MODULE_WITH_SUBDIR)
    get_filename_component(own_folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
    string(APPEND place /${own_folder})
  endif()

  set(files ${MODULE_RESOURCES})
  foreach(script IN LISTS MODULE_SCRIPTS)
    if(NOT script MATCHES "[.]py$")
      string(APPEND script .py)
    endif()
    list(APPEND files ${script})
  endforeach()

  foreach(file IN LISTS files)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "${MODULE_NAME} lists ${file}, which does not exist")
    endif()
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${file} DESTINATION ${place}/${folder})
  endforeach()

  if(BUILD_TESTING AND MODULE_WITH_GENERIC_TESTS)
    file(APPEND ${CMAKE_BINARY_DIR}/tests.txt "generic ${MODULE_NAME}\n")
  endif()
endfunction()

function(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(TEST_UNPARSED_ARGUMENTS OR NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${TEST_SCRIPT})
    message(FATAL_ERROR "A unit test needs a SCRIPT of its own folder, where Slicer looks for it, found: ${ARGN}")
  endif()
  file(APPEND ${CMAKE_BINARY_DIR}/tests.txt "unittest ${TEST_SCRIPT}\n")
endfunction()
